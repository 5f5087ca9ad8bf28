"""Turns dealt out by weight, so that the important go first and nobody starves."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

Rank = TypeVar("Rank", bound=Hashable)


class Turns(Generic[Rank]):
    """Spreads the turns of each rank evenly (smooth weighted round robin, as nginx balances its upstreams).

    Each turn is an order to look in: first the rank whose turn it is, then the others by weight, so that no turn is
    wasted on a rank of which nobody waits.
    """

    def __init__(self, weights: Mapping[Rank, int]) -> None:
        by_weight = sorted(weights, key=weights.__getitem__, reverse=True)
        self._orders = {first: (first, *(rank for rank in by_weight if rank != first)) for first in by_weight}
        self._firsts = _firsts(weights)

    def next(self) -> Sequence[Rank]:
        """The order for one turn."""
        return self._orders[next(self._firsts)]


def _firsts(weights: Mapping[Rank, int]) -> Iterator[Rank]:
    total = sum(weights.values())
    credit = dict.fromkeys(weights, 0)
    while True:
        for rank, weight in weights.items():
            credit[rank] += weight
        chosen = max(credit, key=credit.__getitem__)
        credit[chosen] -= total
        yield chosen
