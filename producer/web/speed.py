"""How fast workers take messages from each queue, of which waits are estimated."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

from producer.contract.names import QUEUES, Queue, queue_name, taken_name
from producer.operations.exchanges import Call, Operation
from producer.operations.traces import Location, counter_of

#: The counters are read this often.
SAMPLE_S: Final = 1.0
#: Speeds are those of this time.
WINDOW_S: Final = 30.0


def taken(prefix: str) -> Operation[dict[Queue, int]]:
    """Return how many messages workers have taken from each queue."""
    found = yield Call("broker", ("MGET", *(taken_name(queue_name(prefix, queue)) for queue in QUEUES)))
    return {queue: counter_of(value) for queue, value in zip(QUEUES, found, strict=True)}


class Speeds:
    """The counters of the last `WINDOW_S`."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, Mapping[Queue, int]]] = deque()

    def add(self, counters: Mapping[Queue, int]) -> None:
        """Add the present counters."""
        now_s = time.monotonic()
        if self._samples and any(counters[queue] < first for queue, first in self._samples[0][1].items()):
            self._samples.clear()  # Redis lost its data
        self._samples.append((now_s, counters))
        while self._samples[0][0] < now_s - WINDOW_S:
            self._samples.popleft()

    def per_s(self, queue: Queue) -> float | None:
        """Return how many messages were taken a second; None if the counters were read only once."""
        if len(self._samples) < 2:
            return None
        (first_s, first), (last_s, last) = self._samples[0], self._samples[-1]
        return max(0, last[queue] - first[queue]) / (last_s - first_s)

    def position(self, locations: Iterable[Location]) -> int | None:
        """Return how many messages are taken before one at one of these locations; None if it was taken."""
        if not self._samples:
            return None
        counters = self._samples[-1][1]
        for location in locations:
            for queue in QUEUES:
                if queue == location.queue and location.number > counters[queue]:
                    return location.number - counters[queue] - 1
        return None

    def wait_s(self, queue: str | None, position: int | None) -> float | None:
        """Return how long a message waits behind this many others; None if that is not known."""
        known = next((name for name in QUEUES if name == queue), None)
        speed = None if known is None else self.per_s(known)
        return None if position is None or not speed else round(position / speed, 1)
