"""The time by the broker's clock, with which this worker compares the times in messages.

The clocks of the machines that send, hold and run jobs may differ by minutes. All of them use the same Redis server, so
that server's clock decides when a job expires or is due.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Final

from worker.delivery.taken import elapsed_s

#: The clock relies on the most exact of this many readings, as NTP does, because some replies arrive late. A change of
#: the broker's clock, or of the broker itself, thus takes effect within as many renewals of the lease.
READINGS: Final = 8


class BrokerClock:
    """Estimates the time by the broker's clock from the replies to the renewals of the lease. Thread-safe.

    The error is at most half of the shortest recent round trip.
    """

    def __init__(self) -> None:
        self._readings: deque[tuple[float, float]] = deque(maxlen=READINGS)
        self._offset_s: float | None = None

    def read(self, told: Sequence[bytes], *, sent_s: float) -> None:
        """Record the reply to TIME.

        Args:
            told: seconds and microseconds, as Redis returned them.
            sent_s: when the command was sent, by `elapsed_s`.
        """
        received_s = elapsed_s()
        redis_s = int(told[0]) + int(told[1]) / 1e6
        self._readings.append((received_s - sent_s, redis_s - (sent_s + received_s) / 2))
        self._offset_s = min(self._readings)[1]

    def now_s(self) -> float:
        """Return the seconds since the epoch; by this machine's own clock until Redis has first replied."""
        return time.time() if self._offset_s is None else elapsed_s() + self._offset_s
