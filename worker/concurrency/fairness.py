"""The order of the queues: high, default and bulk take turns about 16 : 4 : 1 while all wait, and none starves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from producer.contract.names import Queue
from worker.concurrency.turns import Turns

WEIGHTS: Final[Mapping[Queue, int]] = {"high": 16, "default": 4, "bulk": 1}


class FairOrder(Turns[Queue]):
    """The order in which to try the queues for each message."""

    def __init__(self) -> None:
        super().__init__(WEIGHTS)
