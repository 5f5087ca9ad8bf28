"""Of which queues a worker may take another message: the images that are left are counted, each queue's apart."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable
from typing import Final

from producer.contract import QUEUES, Queue, queue_name
from worker.concurrency.shares import RANKS, of_places

#: What a message counts as, whatever becomes of its images: it holds a thread until its answer is stored.
MIN_IMAGES_PER_MESSAGE: Final = 1


class Outcomes:
    """How many images of each bulk message in hand have their outcome. Thread-safe.

    Attributes:
        on_outcome: called after each, in the thread that has it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        self.on_outcome: Callable[[], object] = lambda: None

    def add(self, tag: str) -> None:
        """One more image of the message with this delivery tag has its outcome, and holds nothing any more."""
        with self._lock:
            self._counts[tag] = self._counts.get(tag, 0) + 1
        self.on_outcome()

    def of(self, tag: str) -> int:
        """How many there are."""
        return self._counts.get(tag, 0)

    def forget_others(self, tags: Collection[str]) -> None:
        """Keep the counts of these messages only."""
        with self._lock:
            if not self._counts.keys() <= set(tags):
                self._counts = {tag: self._counts[tag] for tag in self._counts.keys() & set(tags)}


def queue_of(name: str | None, prefix: str) -> Queue:
    """The queue with a list's name; a message that came in another way is like any other."""
    return next((queue for queue in QUEUES if queue_name(prefix, queue) == name), "default")


def open_queues(in_hand: Iterable[tuple[Queue, int]], places: int) -> frozenset[Queue]:
    """The queues that leave places for one more message of theirs.

    Args:
        in_hand: of each message its queue, and how many of its images have no outcome yet.
        places: for images in flight.
    """
    limits = of_places(places)
    held: dict[Queue, int] = dict.fromkeys(RANKS, 0)
    for queue, images in in_hand:
        # No more of a message's images are in flight at once, and none of the others holds a place yet.
        held[queue] += min(max(MIN_IMAGES_PER_MESSAGE, images), limits.bulk)
    # Nor of a queue's: what waits for a place of its own queue takes none from those that matter more.
    held = {queue: min(images, limits.of(queue)) for queue, images in held.items()}
    return frozenset(queue for queue in RANKS if limits.barrier(held, queue, 1) is None)
