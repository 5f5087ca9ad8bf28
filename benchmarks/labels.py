"""The candidate labels of the jobs of a row."""

from __future__ import annotations

import itertools

#: A bulk message has this many images, or fewer if its answer would have more scores than the second limit.
IMAGES_PER_MESSAGE = 32
MAX_SCORES_PER_MESSAGE = 20_000

#: With this count, every set of different labels is new in all rows and rounds.
_serials = itertools.count()


class Labels:
    """The candidate labels of jobs.

    Args:
        count: the number of labels per job.
        shared_by: the number of images that share a set of labels; None if all jobs of all rounds share one set.
    """

    def __init__(self, count: int, shared_by: int | None = None) -> None:
        self.count = count
        self.shared_by = shared_by

    def next_set(self) -> list[str]:
        """Return the one set, or a new set if sets differ. Thread-safe."""
        if self.shared_by is None:
            return [f"candidate label {number}" for number in range(self.count)]
        serial = next(_serials)
        return [f"candidate label {serial} {number}" for number in range(self.count)]


def images_per_message(labels: int) -> int:
    """Return the number of images of a bulk message with this many labels."""
    return min(IMAGES_PER_MESSAGE, max(1, MAX_SCORES_PER_MESSAGE // labels))
