"""Chooses the size of the next batch: as large as the latency target allows."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Hashable
from typing import Final

from worker.engine.latency import LatencyLine

logger = logging.getLogger(__name__)

#: A batch is at most this many times as large as the largest one that has run, because beyond that the duration that
#: `LatencyLine` predicts is a guess.
GROWTH: Final = 2
#: Batches are planned for this share of the target; the rest absorbs slow batches.
PLANNED: Final = 0.9


class BatchSize:
    """Chooses the largest batch that keeps a latency target.

    An item that arrives while a batch runs waits for that batch and runs in the next one. So batches of n items meet
    the target if 2·(a + b·n) is at most nine tenths of the target, where a + b·n is the duration of a batch as
    `LatencyLine` has learned it. This holds for items that find a place in the next batch. If more items of the
    `promised` ranks wait than fit, and the oldest will miss the target, only throughput helps, so the batch has as many
    of these items as possible. If even single items miss the target, batches are as large as without a target.

    Args:
        target_s: the longest time from an item's submission to its output; with None, batches are as large as possible.
        promised: the ranks that the target covers; items of other ranks fill the remaining places.
    """

    def __init__(self, target_s: float | None = None, promised: Collection[Hashable] = ()) -> None:
        self.promised = frozenset(promised)
        self.line = LatencyLine()
        self._target_s = target_s
        self._largest_run = 0
        self._has_warned = False
        self._lock = threading.Lock()  # on a CPU a batch may end while another thread chooses a size

    def learn(self, size: int, run_s: float) -> None:
        """Record the duration of a batch that ran under full load."""
        with self._lock:
            self._largest_run = max(self._largest_run, size)
            self.line.learn(size, run_s)

    def choose(self, max_batch: int, promised: int = 0, waited_s: float = 0.0) -> int:
        """Return how many items the next batch may have, from 1 to ``max_batch``.

        Args:
            promised: the number of waiting items of the promised ranks.
            waited_s: how long the oldest of these items has waited.
        """
        if self._target_s is None:
            return max_batch
        with self._lock:
            run_s = PLANNED * self._target_s / 2
            if self.line.predict_s(1) > run_s:
                self._warn_once(self._target_s)
                return max_batch
            size = self._within(run_s, min(max_batch, max(1, GROWTH * self._largest_run)))
            is_late = waited_s + self.line.predict_s(size) > self._target_s
            return min(max_batch, max(size, promised)) if is_late else size

    def _within(self, run_s: float, most: int) -> int:
        """Return the largest size from 1 to ``most`` whose batch takes at most ``run_s``; 1 if there is none."""
        if self.line.predict_s(most) <= run_s:
            return most
        return max(1, int((run_s - self.line.fixed_s) / self.line.item_s))

    def _warn_once(self, target_s: float) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "the latency target of %g ms is out of reach: a single item takes %.3g ms and may wait as long; "
                "batches are as large as without a target; set NAMESHOT_LATENCY_TARGET_MS above %.0f",
                target_s * 1000,
                self.line.predict_s(1) * 1000,
                2000 / PLANNED * self.line.predict_s(1),
            )
