"""Computes how long a job has waited since the time of sending that its message states."""

from __future__ import annotations

from typing import Any, Final

from producer.contract.names import SENT_AT_HEADER

#: A longer wait than a year means that a clock is wrong. Such a wait is not reported, because it would ruin the
#: histogram's sum.
LONGEST_QUEUED_MS: Final = 366 * 86_400_000.0


def queued_ms(request: Any, now_s: float) -> float | None:
    """Return how long the message waited, in ms; None if it holds no plausible time of sending.

    A client of an older version wrote that time by its own clock, so the result could be negative; it is 0 then.
    """
    sent_at = (request.headers or {}).get(SENT_AT_HEADER) or getattr(request, SENT_AT_HEADER, None)
    if isinstance(sent_at, bool) or not isinstance(sent_at, int | float):
        return None
    queued_ms = round(max(0.0, now_s - sent_at) * 1000, 3)
    return queued_ms if queued_ms <= LONGEST_QUEUED_MS else None
