"""Limits on each queue's share of a resource, which reserve a little of the resource for the more important queues.

A granted share cannot be revoked, and its holder may be slow: a download may stall until its timeout, and decoding may
take half a minute. Weights do not help then, because they only decide which queue is next. So limits keep less
important queues from holding all of a resource, unless it is very small.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from producer.contract.names import Queue

#: The queues from the least to the most important.
RANKS: Final[tuple[Queue, ...]] = ("bulk", "default", "high")
#: While all three queues hold jobs, ``high``, ``default`` and ``bulk`` have turns about 16 : 4 : 1, so none starves.
WEIGHTS: Final[Mapping[Queue, int]] = {"high": 16, "default": 4, "bulk": 1}
#: One sixteenth of a resource is reserved for ``high``, and another for ``high`` and ``default`` together. That is
#: enough for their jobs to overtake waiting jobs of less important queues, and the other places still fill a batch.
KEPT_SHARE: Final = 16
#: If there are fewer than `FEW_PLACES`, only one is reserved: ``bulk`` may not hold the last one. If there are fewer
#: than `VERY_FEW_PLACES`, none is reserved.
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
        """Return the most important queue whose limit this share for `queue` would exceed; None if it fits."""
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
    """Return limits on places or bytes; a part of ``amount`` is reserved for the more important queues."""
    if amount < FEW_PLACES:
        return Limits(amount - (amount >= VERY_FEW_PLACES), amount, amount)
    kept = amount // KEPT_SHARE or 1
    return Limits(amount - 2 * kept, amount - kept, amount)


def of_decoders(amount: int) -> Limits:
    """Return limits with one more decoder for ``high``; reserving one of ``amount`` would often leave a core idle."""
    return Limits(amount, amount, amount + 1)
