"""Makes our messages in the form in which Redis queues them, without Redis."""

from __future__ import annotations

from datetime import datetime

from producer.messages.envelope import UndatedMessage


def dated(message: UndatedMessage, *, sent_at_s: float, expires_at: datetime) -> bytes:
    times = f'"expires":"{expires_at.isoformat()}","nameshot_sent_at":{sent_at_s}'
    return f"{message.before}{times}{message.after}".encode()
