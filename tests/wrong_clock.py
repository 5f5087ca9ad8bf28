"""A process whose wall clock is wrong; its other clocks, such as `time.monotonic`, are right."""

from __future__ import annotations

import datetime
import time


def set_ahead(seconds: float) -> None:
    """Set this process's wall clock ahead, or behind if the seconds are negative; call this before other imports."""
    right_s, right_ns = time.time, time.time_ns

    class WrongDatetime(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> WrongDatetime:
            moment: WrongDatetime = super().now(tz) + datetime.timedelta(seconds=seconds)
            return moment

    time.time = lambda: right_s() + seconds
    time.time_ns = lambda: right_ns() + round(seconds * 1e9)
    datetime.datetime = WrongDatetime  # type: ignore[misc]  # this is what is wrong with the process
