"""A message of ours as Redis queues it, where a test needs one without Redis."""

from __future__ import annotations

from datetime import datetime

from producer.messages.envelope import UndatedMessage


def dated(message: UndatedMessage, *, sent_at_s: float, expires_at: datetime) -> bytes:
    times = f'"expires":"{expires_at.isoformat()}","nameshot_sent_at":{sent_at_s}'
    return f"{message.before}{times}{message.after}".encode()
