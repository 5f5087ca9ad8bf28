"""The clock that measures how long a worker has held a message."""

from __future__ import annotations

import time
from typing import Final

#: On Linux CLOCK_MONOTONIC stops while the machine is suspended; CLOCK_BOOTTIME does not.
_CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def elapsed_s() -> float:
    """Return seconds since an arbitrary moment, including time when the process or the machine was suspended."""
    return time.clock_gettime(_CLOCK)
