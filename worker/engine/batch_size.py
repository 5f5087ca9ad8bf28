"""How large the next batch may be, so that images are answered within a target and no throughput is given away."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Hashable
from typing import Final

from worker.engine.latency import LatencyLine

logger = logging.getLogger(__name__)

#: A size is believed only up to so many times the largest that ran: the line was not seen beyond it.
GROWTH: Final = 2
#: Of the target; what is left is for batches that take longer than usual.
PLANNED: Final = 0.9


class BatchSize:
    """Chooses the largest batch that keeps a latency target.

    An item that comes while a batch runs waits for it and rides in the next, so a size n keeps the target when
    2·(a + b·n) stays below nine tenths of it, with a and b as they were learned. That holds for whoever finds a place
    in the next batch. When more items of the `promised` ranks wait than fit, and the oldest has waited too long
    already, only throughput helps: the batch takes all of them that it may. When not even single items keep the
    target, batches are as large as without one.

    Args:
        target_s: from an item's submission to its output; None leaves batches as large as they may be.
        promised: the ranks that the target is for. The others fill the places that are left.
    """

    def __init__(self, target_s: float | None = None, promised: Collection[Hashable] = ()) -> None:
        self.promised = frozenset(promised)
        self.line = LatencyLine()
        self._target_s = target_s
        self._largest_run = 0
        self._said_out_of_reach = False
        self._lock = threading.Lock()  # a CPU's batches end while others are chosen

    def learn(self, size: int, run_s: float) -> None:
        """Take in what a batch took that shared its device as fully as batches do while items wait."""
        with self._lock:
            self._largest_run = max(self._largest_run, size)
            self.line.learn(size, run_s)

    def choose(self, max_batch: int, promised: int = 0, waited_s: float = 0.0) -> int:
        """Items that the next batch may have, from 1 to ``max_batch``.

        Args:
            promised: how many items of the promised ranks wait.
            waited_s: how long the oldest of them has waited.
        """
        if self._target_s is None:
            return max_batch
        with self._lock:
            run_s = PLANNED * self._target_s / 2
            if self.line.predict_s(1) > run_s:
                self._say_out_of_reach(self._target_s)
                return max_batch
            size = self._within(run_s, min(max_batch, max(1, GROWTH * self._largest_run)))
            is_late = waited_s + self.line.predict_s(size) > self._target_s
            return min(max_batch, max(size, promised)) if is_late else size

    def _within(self, run_s: float, most: int) -> int:
        """The largest size from 1 to ``most`` that takes no longer."""
        if self.line.predict_s(most) <= run_s:
            return most
        return max(1, int((run_s - self.line.fixed_s) / self.line.item_s))

    def _say_out_of_reach(self, target_s: float) -> None:
        if not self._said_out_of_reach:
            self._said_out_of_reach = True
            logger.warning(
                "a latency target of %g ms is out of reach: an item alone takes %.3g ms and may have to wait as long; "
                "batches are as large as without a target; NAMESHOT_LATENCY_TARGET_MS above %.0f would work",
                target_s * 1000,
                self.line.predict_s(1) * 1000,
                2000 / PLANNED * self.line.predict_s(1),
            )
