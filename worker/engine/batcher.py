"""Device threads that take whatever has gathered: batching across jobs.

Generic: it knows nothing of images, torch or Celery. Work is put into *lanes* (images, prompts), each with its
own function and maximal batch. A thread never waits while it is idle and something is queued; arrivals gather
while all are busy. A GPU has one such thread, the cores of a CPU several: of those that are idle the first goes to
work, so that a batch that is alone always has the same thread, and the helpers that PyTorch gave it. Lanes take
turns, so that a thousand new labels delay an image by one batch of labels at most.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from worker.engine.batch_size import BatchSize
from worker.engine.lane import ALIKE, BatchQueue, BatchResult, Entry, Item, Output, Verdict

__all__ = ["BatchQueue", "BatchResult", "Batcher", "BatcherClosed", "Verdict"]

logger = logging.getLogger(__name__)


class BatcherClosed(RuntimeError):
    """The device thread has ended; nothing more will be computed by it."""


class Batcher:
    """The device's threads and its lanes.

    Args:
        threads: batches that run at once.
        max_wait_s: how long an idle thread lets a batch grow that is not full yet; 0 never waits.
        judge: what an error of one batch says of others.
        gate: what a thread is in while it has a batch; it may have to wait there, and then chooses among all that has
            come meanwhile.
    """

    def __init__(
        self,
        *,
        threads: int = 1,
        max_wait_s: float = 0.0,
        judge: Callable[[Exception], Verdict] = lambda _: "one item's fault",
        gate: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._gate = gate
        self._max_wait_s = max_wait_s
        self._judge = judge
        self._lanes: deque[BatchQueue[Any, Any]] = deque()
        self._lock = threading.Lock()
        self._closed = False
        #: When each running batch began, by its thread's number; in order, so that the oldest stands first.
        self._busy_since: dict[int, float] = {}
        self._threads = [
            threading.Thread(target=self._serve, args=(number,), name=f"device-{number}", daemon=True)
            for number in range(threads)
        ]
        #: How each thread is told that there is work for it, or more of it.
        self._calls = [threading.Condition(self._lock) for _ in range(threads)]

    def lane(
        self,
        name: str,
        run: Callable[[Sequence[Item]], Sequence[Output]],
        max_batch: int,
        weights: Mapping[Any, int] = ALIKE,
        size: BatchSize | None = None,
    ) -> BatchQueue[Item, Output]:
        """Add a lane; ``run`` gets 1 to ``max_batch`` items and returns as many outputs, in the same order.

        Args:
            size: how many of ``max_batch`` to take at a time; all by default.
        """
        lane: BatchQueue[Item, Output] = BatchQueue(name, run, max_batch, weights, size or BatchSize(), self._enqueue)
        self._lanes.append(lane)
        return lane

    def start(self) -> None:
        """Start the device's threads."""
        for thread in self._threads:
            thread.start()

    def close(self, timeout_s: float | None = None) -> None:
        """Finish the running batches, fail what still waits with `BatcherClosed`, and end the threads."""
        with self._lock:
            self._closed = True
            for call in self._calls:
                call.notify()
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))

    @property
    def busy_s(self) -> float:
        """Seconds the oldest running batch has taken so far; 0 when the device is idle."""
        since = next(iter(self._busy_since.copy().values()), None)
        return time.monotonic() - since if since is not None else 0.0

    @property
    def parallel(self) -> int:
        """Batches that run now or could be running at once: what a batch that starts should leave room for."""
        with self._lock:
            ready = sum(-(-len(lane) // lane.limit) for lane in self._lanes)
            return max(1, min(len(self._threads), len(self._busy_since) + ready))

    def _enqueue(self, lane: BatchQueue[Any, Any], passenger: Entry[Any, Any]) -> None:
        with self._lock:
            if self._closed:
                raise BatcherClosed("the device thread has ended")
            lane.put(passenger)
            self._call_the_first()

    @property
    def _first_idle(self) -> int | None:
        return next((number for number in range(len(self._threads)) if number not in self._busy_since), None)

    def _call_the_first(self) -> None:
        if (number := self._first_idle) is not None:
            self._calls[number].notify()

    def _serve(self, number: int) -> None:
        while self._is_called(number):
            with self._gate():
                self._ride(number)

    def _ride(self, number: int) -> None:
        """Run what there is, if there still is something."""
        if (work := self._next(number)) is None:
            return
        lane, batch = work
        try:
            # A batch that has a CPU to itself is quicker than those that a backlog makes.
            lane.ride(batch, self._judge, learn=self.parallel == len(self._threads))
        except BaseException as error:  # the thread serves every job: nothing may end it
            logger.critical("%s: the device thread caught %s", lane.name, type(error).__name__)
            for passenger in batch:
                if not passenger.future.done():
                    passenger.future.set_exception(error)
        finally:
            with self._lock:
                del self._busy_since[number]

    def _is_called(self, number: int) -> bool:
        """Wait for work that is this thread's: what there is while all before it are busy. False: it was closed."""
        call = self._calls[number]
        with self._lock:
            while not self._closed and (number != self._first_idle or not any(self._lanes)):
                call.wait()
            if self._closed:
                for lane in self._lanes:
                    lane.abandon(BatcherClosed("the worker is shutting down"))
                return False
            if self._max_wait_s:
                self._let_it_grow(call)
            return True

    def _next(self, number: int) -> tuple[BatchQueue[Any, Any], list[Entry[Any, Any]]] | None:
        """The batch whose turn it is; None when all that waited was taken back."""
        with self._lock:
            for _ in range(0 if self._closed else len(self._lanes)):
                lane = self._lanes[0]
                self._lanes.rotate(-1)
                if lane and (batch := lane.take()):
                    self._busy_since[number] = time.monotonic()
                    if any(self._lanes):
                        self._call_the_first()
                    return lane, batch
        return None

    def _let_it_grow(self, call: threading.Condition) -> None:
        """Wait until a lane has a full batch or its oldest item has waited long enough."""
        deadline = min(lane.oldest_at for lane in self._lanes) + self._max_wait_s
        while not self._closed and all(len(lane) < lane.limit for lane in self._lanes):
            if (left_s := deadline - time.perf_counter()) <= 0:
                return
            call.wait(left_s)
