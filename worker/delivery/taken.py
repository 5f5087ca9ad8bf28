"""What this worker and Redis record about a taken message, in addition to what its sender wrote."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

#: The transport sets this header, a `Taken`, on each message; a sender's header of this name is dropped.
TAKEN_HEADER: Final = "nameshot_taken"
#: On Linux CLOCK_MONOTONIC stops while the machine is suspended; CLOCK_BOOTTIME does not.
_CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


@dataclass(frozen=True, slots=True)
class Deaths:
    """How many workers died with a job in hand.

    Attributes:
        count: all of these workers.
        alone: those that died while a stage of the job ran alone.
    """

    count: int = 0
    alone: int = 0


NO_DEATHS: Final = Deaths()


@dataclass(frozen=True, slots=True)
class Taken:
    """What this worker has recorded about a message that it took.

    Attributes:
        life: the delivery tag that the sender chose, which distinguishes submissions of one id; empty if there is none.
        at_s: when the worker took the message, by `elapsed_s`; None if unknown.
        deaths: the deaths of workers that had the message in hand before.
        fault: what is wrong with a malformed message, as a clause without its content; empty if nothing is wrong.
    """

    life: str = ""
    at_s: float | None = None
    deaths: Deaths = NO_DEATHS
    fault: str = ""

    def ago_us(self) -> str:
        """Return when the worker took the message, as a string: microseconds from now, at most 0; empty if unknown."""
        return "" if self.at_s is None else f"{min(0.0, self.at_s - elapsed_s()) * 1e6:.0f}"


def elapsed_s() -> float:
    """Return the seconds since an arbitrary moment, including those while the process or the machine was suspended."""
    return time.clock_gettime(_CLOCK)
