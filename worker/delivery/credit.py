"""Decides from which queues a worker may take another message, by counting each queue's unfinished images."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable

from producer.contract.names import QUEUES, Queue, queue_name
from worker.concurrency.shares import RANKS, of_places


class Outcomes:
    """Counts, for each bulk message in hand, the images that have an outcome. Thread-safe.

    Attributes:
        on_outcome: called after each outcome, in the thread that recorded it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        self.on_outcome: Callable[[], object] = lambda: None

    def add(self, tag: str) -> None:
        """Record that one more image of the message with this delivery tag has an outcome and has freed its place."""
        with self._lock:
            self._counts[tag] = self._counts.get(tag, 0) + 1
        self.on_outcome()

    def of(self, tag: str) -> int:
        """Return the number of images of this message that have an outcome."""
        return self._counts.get(tag, 0)

    def forget_others(self, tags: Collection[str]) -> None:
        """Drop the counts of all messages except these."""
        with self._lock:
            self._counts = {tag: count for tag, count in self._counts.items() if tag in tags}


def queue_of(name: str | None, prefix: str) -> Queue:
    """Return the queue whose list has this name; ``default`` for any other name."""
    return next((queue for queue in QUEUES if queue_name(prefix, queue) == name), "default")


def open_queues(in_hand: Iterable[tuple[Queue, int]], places: int) -> frozenset[Queue]:
    """Return the queues whose limits leave room for one more message.

    Args:
        in_hand: for each message its queue and the number of its images that have no outcome yet.
        places: the maximum number of images in flight.
    """
    limits = of_places(places)
    held: dict[Queue, int] = dict.fromkeys(RANKS, 0)
    for queue, images in in_hand:
        # At most `limits.bulk` images of one message can be in flight at once; its other images hold no place yet. A
        # message whose images are all done counts as one image, since it occupies a thread until its answer is stored.
        held[queue] += min(max(1, images), limits.bulk)
    # Likewise, images beyond their queue's limit wait for that queue's places and take none from other queues.
    held = {queue: min(images, limits.of(queue)) for queue, images in held.items()}
    return frozenset(queue for queue in RANKS if limits.barrier(held, queue, 1) is None)
