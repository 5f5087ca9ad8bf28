"""Weighted turns: important ranks have more of them, and no rank starves."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

Rank = TypeVar("Rank", bound=Hashable)
Item = TypeVar("Item")


class Turns(Generic[Rank]):
    """Spreads the turns of each rank evenly, by the smooth weighted round robin with which nginx balances upstreams.

    Each turn is an order in which to try the ranks: first the rank whose turn it is, then the others by weight, so that
    an empty rank wastes no turn.
    """

    def __init__(self, weights: Mapping[Rank, int]) -> None:
        by_weight = sorted(weights, key=weights.__getitem__, reverse=True)
        self._orders = {first: (first, *(rank for rank in by_weight if rank != first)) for first in by_weight}
        self._firsts = _firsts(weights)

    def next(self) -> Sequence[Rank]:
        """Return the order for the next turn."""
        return self._orders[next(self._firsts)]


class RankedQueue(Generic[Item]):
    """A queue of items with several ranks, first in, first out within each rank."""

    def __init__(self, ranks: Iterable[Hashable]) -> None:
        self._items: dict[Hashable, deque[Item]] = {rank: deque() for rank in ranks}

    def __len__(self) -> int:
        return sum(map(len, self._items.values()))

    def count(self, ranks: Iterable[Hashable]) -> int:
        """Return the number of items of these ranks; a rank that this queue does not have counts as empty."""
        return sum(len(self._items.get(rank, ())) for rank in ranks)

    def heads(self) -> Iterator[Item]:
        """Yield the oldest item of each rank that has one."""
        return (items[0] for items in self._items.values() if items)

    def put(self, item: Item, rank: Hashable) -> None:
        """Add an item at the end of its rank."""
        self._items[rank].append(item)

    def put_back(self, item: Item, rank: Hashable) -> None:
        """Return an item to the front of its rank."""
        self._items[rank].appendleft(item)

    def pop(self, turns: Turns[Hashable]) -> Item | None:
        """Remove and return the oldest item of the rank whose turn it is, or of the next rank that has one.

        If the queue is empty, return None and use no turn.
        """
        if not any(self._items.values()):
            return None
        return next(self._items[rank] for rank in turns.next() if self._items[rank]).popleft()


def _firsts(weights: Mapping[Rank, int]) -> Iterator[Rank]:
    total = sum(weights.values())
    credit = dict.fromkeys(weights, 0)
    while True:
        for rank, weight in weights.items():
            credit[rank] += weight
        chosen = max(credit, key=credit.__getitem__)
        credit[chosen] -= total
        yield chosen
