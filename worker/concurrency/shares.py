"""What each queue may hold of something that all jobs share: a little is kept for those that matter more.

What is held cannot be taken back: a download may stall for all its time, an image may decode for half a minute. Weights
alone are no help then, for they say only who is next. So the images of a queue never hold all there is, unless nothing
matters more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from producer.contract import Queue

#: From the least to the most important.
RANKS: Final[tuple[Queue, ...]] = ("bulk", "default", "high")
#: A sixteenth is kept for ``high``, and another one for ``default`` and ``high``: enough for single jobs to pass those
#: that wait, and a batch is filled without it.
KEPT_SHARE: Final = 16
#: With fewer places than this, only ``bulk`` leaves one; with fewer than the other, each queue may have them all.
FEW_PLACES: Final = 8
VERY_FEW_PLACES: Final = 4


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that a queue and those that matter less may hold together.

    Attributes:
        high: all there is.
    """

    bulk: int
    default: int
    high: int

    def of(self, queue: Queue) -> int:
        """The most that one queue may hold."""
        return self.bulk if queue == "bulk" else self.default if queue == "default" else self.high

    def barrier(self, held: Mapping[Queue, int], queue: Queue, share: int) -> Queue | None:
        """The most important queue whose limit a further share of a queue's would break; None when there is none."""
        together, barrier = 0, None
        for rank in RANKS:
            together += held[rank] + (share if rank == queue else 0)
            if RANKS.index(rank) >= RANKS.index(queue) and together > self.of(rank):
                barrier = rank
        return barrier


def all_alike(amount: int) -> Limits:
    """Every queue may hold all there is."""
    return Limits(amount, amount, amount)


def of_places(amount: int) -> Limits:
    """So many places, or bytes, of which a part is kept for the more important queues."""
    if amount < FEW_PLACES:
        return Limits(amount - (amount >= VERY_FEW_PLACES), amount, amount)
    kept = amount // KEPT_SHARE or 1
    return Limits(amount - 2 * kept, amount - kept, amount)


def of_decoders(amount: int) -> Limits:
    """So many decoders, and one more for ``high``: to leave a core idle would cost the others too much."""
    return Limits(amount, amount, amount + 1)
