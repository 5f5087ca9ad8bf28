"""How many items fit into a batch, as the device's memory has it: less once there was not enough, more again later."""

from __future__ import annotations

import logging
import threading
from typing import Final

logger = logging.getLogger(__name__)

#: Full batches in a row before twice as many items are tried again. A try that fails costs the time of one batch, a
#: 256th; and from single images a worker is back at 64 within 1,536 batches, some minutes under load. What filled the
#: memory was often another program, which has gone.
FULL_BATCHES_TO_GROW: Final = 256


class BatchLimit:
    """Halved by each batch that does not fit, doubled after many that did, up to what it was at first.

    Args:
        name: what messages call the batches.
        most: items in one batch while there is memory.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._now = most
        self._full_batches = 0
        self._lock = threading.Lock()  # a CPU has several batches at once

    @property
    def now(self) -> int:
        """Items that a batch may have."""
        return self._now

    def did_not_fit(self, size: int) -> None:
        """A batch of this size ran out of memory."""
        with self._lock:
            half = (size + 1) // 2
            self._full_batches = 0
            if half < self._now:
                self._now = half
                logger.warning("%s: out of memory at batch %d, at most %d from now on", self._name, size, half)

    def did_fit(self, size: int) -> None:
        """A batch of this size ran."""
        if size < self._now or self._now == self._most:
            return
        with self._lock:
            self._full_batches += 1
            if self._full_batches >= FULL_BATCHES_TO_GROW and self._now < self._most:
                self._full_batches = 0
                self._now = min(self._most, 2 * self._now)
                logger.info(
                    "%s: batches of %d are tried again, since %d of the size before had memory enough",
                    self._name,
                    self._now,
                    FULL_BATCHES_TO_GROW,
                )
