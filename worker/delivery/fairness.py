"""Which queue comes next: high, default and bulk about 16 : 4 : 1 while all wait, and nothing starves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from producer.contract import QUEUES, Queue

WEIGHTS: Final[dict[Queue, int]] = {"high": 16, "default": 4, "bulk": 1}


class FairOrder:
    """Deals out turns by weight, spread evenly (smooth weighted round robin, as nginx balances its upstreams).

    Each turn is an order to look in: first the queue whose turn it is, then the others by weight, so that no turn is
    wasted on an empty queue.
    """

    def __init__(self, weights: dict[Queue, int] | None = None) -> None:
        self._turns = _turns(weights or WEIGHTS)

    def next(self) -> Sequence[Queue]:
        """The order for one message."""
        first = next(self._turns)
        return (first, *(queue for queue in QUEUES if queue != first))


def _turns(weights: dict[Queue, int]) -> Iterator[Queue]:
    total = sum(weights.values())
    credit = dict.fromkeys(weights, 0)
    while True:
        for queue, weight in weights.items():
            credit[queue] += weight
        chosen = max(credit, key=credit.__getitem__)
        credit[chosen] -= total
        yield chosen
