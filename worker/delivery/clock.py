"""The clock by which a worker knows how long it has had a message."""

from __future__ import annotations

import time
from typing import Final

#: Linux' monotonic clock stands still while the machine is suspended; others have one that does not.
_CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def elapsed_s() -> float:
    """Seconds since some moment; it goes on while the process, or the machine, is stopped."""
    return time.clock_gettime(_CLOCK)
