"""What the delivery knows of a message that this worker has taken, beside what its sender wrote."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

#: The transport sets this header, a `Taken`, on each message; none of a sender's can replace it.
TAKEN_HEADER: Final = "nameshot_taken"
#: On Linux CLOCK_MONOTONIC stops while the machine is suspended; CLOCK_BOOTTIME does not.
_CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


@dataclass(frozen=True, slots=True)
class Deaths:
    """How many workers died with a job in hand.

    Attributes:
        count: all of them.
        alone: those that ran nothing else that could end a process.
    """

    count: int = 0
    alone: int = 0


NO_DEATHS: Final = Deaths()


@dataclass(frozen=True, slots=True)
class Taken:
    """How a message came into this worker's hands.

    Attributes:
        life: tells submissions of one id apart, by the delivery tag that the sender chose; empty if there is none.
        at_s: when it was taken, by `elapsed_s`; None if unknown.
        deaths: the deaths of workers that had it in hand before.
        fault: what is wrong with a malformed message, in a few words without its content; empty if nothing is.
    """

    life: str = ""
    at_s: float | None = None
    deaths: Deaths = NO_DEATHS
    fault: str = ""

    def ago_us(self) -> str:
        """Return when it was taken, in microseconds relative to now, for `FIRST_ANSWER_WINS`; empty if unknown."""
        return "" if self.at_s is None else f"{min(0.0, self.at_s - elapsed_s()) * 1e6:.0f}"


def elapsed_s() -> float:
    """Return seconds since an arbitrary moment, including time when the process or the machine was suspended."""
    return time.clock_gettime(_CLOCK)
