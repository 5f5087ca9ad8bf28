"""Which candidate labels the jobs of a row have."""

from __future__ import annotations

import itertools

#: Images of a bulk message; fewer where a message would hold more scores than the contract allows.
IMAGES_PER_MESSAGE = 32
MAX_SCORES_PER_MESSAGE = 20_000

#: Every set of different labels is new, in whichever row and round.
_serials = itertools.count()


class Labels:
    """So many candidate labels a job.

    Args:
        count: of a job.
        shared_by: images that have one set, before the next is new; None: all jobs of all rounds have the same.
    """

    def __init__(self, count: int, shared_by: int | None = None) -> None:
        self.count = count
        self.shared_by = shared_by

    def next_set(self) -> list[str]:
        """The same set again, or one that nobody has seen; for any thread."""
        if self.shared_by is None:
            return [f"candidate label {number}" for number in range(self.count)]
        serial = next(_serials)
        return [f"candidate label {serial} {number}" for number in range(self.count)]


def images_per_message(labels: int) -> int:
    """Images of one bulk message with so many labels."""
    return min(IMAGES_PER_MESSAGE, max(1, MAX_SCORES_PER_MESSAGE // labels))
