"""Adapts a queue's maximum batch size to the device's free memory."""

from __future__ import annotations

import logging
import threading
from typing import Final

logger = logging.getLogger(__name__)

#: The limit doubles after this many full batches, because often another program used the memory and has ended by then.
#: A doubling that fails costs one batch in 256, and a worker returns from single images to batches of 64 within 1,536
#: batches, some minutes under load.
FULL_BATCHES_TO_GROW: Final = 256


class BatchLimit:
    """A maximum batch size, which halves when a batch runs out of memory and doubles again after many full batches.

    Args:
        name: the queue's name in log lines.
        most: the first and largest maximum.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._now = most
        self._full_batches = 0
        self._lock = threading.Lock()  # a CPU runs several batches at once

    @property
    def now(self) -> int:
        """The number of items that a batch may have."""
        return self._now

    def did_not_fit(self, size: int) -> None:
        """Record that a batch of this size ran out of memory."""
        with self._lock:
            half = (size + 1) // 2
            self._full_batches = 0
            if half < self._now:
                self._now = half
                logger.warning("%s: out of memory at batch %d, at most %d from now on", self._name, size, half)

    def did_fit(self, size: int) -> None:
        """Record that a batch of this size ran without an error."""
        if size < self._now or self._now == self._most:
            return
        with self._lock:
            self._full_batches += 1
            if self._full_batches >= FULL_BATCHES_TO_GROW and self._now < self._most:
                self._full_batches = 0
                self._now = min(self._most, 2 * self._now)
                logger.info(
                    "%s: trying batches of %d again after %d full batches of the previous size",
                    self._name,
                    self._now,
                    FULL_BATCHES_TO_GROW,
                )
