"""Limits on how much of a shared resource each queue may hold, which reserve a little for more important queues.

A granted share cannot be revoked: a download may stall until its timeout, an image may decode for half a minute.
Weights alone do not help then, since they decide only which queue is next. So a queue's images never hold the whole
resource, except those of the most important queue.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from producer.contract.names import Queue

#: The queues from the least to the most important.
RANKS: Final[tuple[Queue, ...]] = ("bulk", "default", "high")
#: While all queues wait they take turns about 16 : 4 : 1, and none starves.
WEIGHTS: Final[Mapping[Queue, int]] = {"high": 16, "default": 4, "bulk": 1}
#: A sixteenth is reserved for ``high``, and another one for ``default`` and ``high``: this is enough for single jobs to
#: overtake waiting ones, and the remaining places still fill a batch.
KEPT_SHARE: Final = 16
#: With fewer than `FEW_PLACES` only ``bulk`` leaves a place free; with fewer than `VERY_FEW_PLACES` no queue does.
FEW_PLACES: Final = 8
VERY_FEW_PLACES: Final = 4


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that each queue may hold, together with all less important queues.

    Attributes:
        bulk: the limit for ``bulk``.
        default: the limit for ``default`` and ``bulk`` together.
        high: the limit for all queues together.
    """

    bulk: int
    default: int
    high: int

    def of(self, queue: Queue) -> int:
        """Return the most that one queue may hold."""
        return self.bulk if queue == "bulk" else self.default if queue == "default" else self.high

    def barrier(self, held: Mapping[Queue, int], queue: Queue, share: int) -> Queue | None:
        """Return the most important queue whose limit another share for `queue` would exceed; None if there is none."""
        together, barrier = 0, None
        for rank in RANKS:
            together += held[rank] + (share if rank == queue else 0)
            if RANKS.index(rank) >= RANKS.index(queue) and together > self.of(rank):
                barrier = rank
        return barrier


def all_alike(amount: int) -> Limits:
    """Return limits under which every queue may hold the whole amount."""
    return Limits(amount, amount, amount)


def of_places(amount: int) -> Limits:
    """Return limits for places or bytes that reserve a part for the more important queues."""
    if amount < FEW_PLACES:
        return Limits(amount - (amount >= VERY_FEW_PLACES), amount, amount)
    kept = amount // KEPT_SHARE or 1
    return Limits(amount - 2 * kept, amount - kept, amount)


def of_decoders(amount: int) -> Limits:
    """Return limits for decoders with one extra for ``high``, since a reserved decoder would leave a core idle."""
    return Limits(amount, amount, amount + 1)
