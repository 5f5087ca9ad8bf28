"""Dynamic batching across jobs: the device's threads run the items that have queued up.

The batcher does not depend on images, torch or Celery. It has one *queue* per kind of work (images, prompts), each with
its own function and maximum batch. Unless ``max_wait_s`` is set, an idle thread never waits while an item is queued:
items gather while all threads are busy. A GPU has one thread, a CPU several. The first idle thread runs the next batch,
so batches that run one at a time all run in the same thread, which keeps its PyTorch helper threads. The queues take
turns, so a thousand new labels delay an image by at most one batch of labels.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from worker.engine.batch_queue import ALIKE, BatchQueue, Entry, Item, Output, Verdict
from worker.engine.batch_size import BatchSize

logger = logging.getLogger(__name__)


class BatcherClosed(RuntimeError):
    """The batcher was closed and computes nothing more."""


class Batcher:
    """The device's threads and its queues.

    Args:
        threads: the number of batches that may run at once.
        max_wait_s: how long an idle thread waits for a batch to fill up; with 0 it does not wait.
        verdict_on: returns what an error of one batch means for further batches.
        gate: returns the context in which a thread chooses and runs one batch. Entering the context may block;
            afterwards the thread chooses among all items that have arrived meanwhile.
    """

    def __init__(
        self,
        *,
        threads: int = 1,
        max_wait_s: float = 0.0,
        verdict_on: Callable[[Exception], Verdict] = lambda _: "one item's fault",
        gate: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._gate = gate
        self._max_wait_s = max_wait_s
        self._verdict_on = verdict_on
        self._queues: deque[BatchQueue[Any, Any]] = deque()
        self._lock = threading.Lock()
        self._closed = False
        #: When each running batch started, by the number of its thread, oldest first.
        self._busy_since: dict[int, float] = {}
        self._threads = [
            threading.Thread(target=self._serve, args=(number,), name=f"device-{number}", daemon=True)
            for number in range(threads)
        ]
        #: One condition per thread, notified when there is work, or more work, for that thread.
        self._wakeups = [threading.Condition(self._lock) for _ in range(threads)]

    def add_queue(
        self,
        name: str,
        run: Callable[[Sequence[Item]], Sequence[Output]],
        max_batch: int,
        weights: Mapping[Any, int] = ALIKE,
        size: BatchSize | None = None,
    ) -> BatchQueue[Item, Output]:
        """Add a queue of items for one function.

        Args:
            run: gets 1 to ``max_batch`` items and returns as many outputs, in the same order.
            weights: the weight of each rank of items.
            size: chooses the batch size within ``max_batch``; by default batches are as large as possible.
        """
        queue: BatchQueue[Item, Output] = BatchQueue(name, run, max_batch, weights, size or BatchSize(), self._enqueue)
        self._queues.append(queue)
        return queue

    def start(self) -> None:
        """Start the device's threads."""
        for thread in self._threads:
            thread.start()

    def close(self, timeout_s: float | None = None) -> None:
        """Fail waiting items with `BatcherClosed`, and wait until the running batches and the threads have ended.

        Args:
            timeout_s: the longest wait; None waits without a limit.
        """
        with self._lock:
            self._closed = True
            for wakeup in self._wakeups:
                wakeup.notify()
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))

    @property
    def busy_s(self) -> float:
        """Seconds since the oldest running batch started; 0 while the device is idle."""
        since = next(iter(self._busy_since.copy().values()), None)
        return time.monotonic() - since if since is not None else 0.0

    @property
    def parallel(self) -> int:
        """The number of batches that run or are ready to run, at most one per thread; they share the cores."""
        with self._lock:
            ready = sum(-(-len(queue) // queue.limit) for queue in self._queues)
            return max(1, min(len(self._threads), len(self._busy_since) + ready))

    def _enqueue(self, queue: BatchQueue[Any, Any], entry: Entry[Any, Any]) -> None:
        with self._lock:
            if not self._closed:
                queue.put(entry)
                self._wake_first_idle()
                return
        entry.future.set_exception(BatcherClosed("the batcher was closed"))

    @property
    def _first_idle(self) -> int | None:
        return next((number for number in range(len(self._threads)) if number not in self._busy_since), None)

    def _wake_first_idle(self) -> None:
        if (number := self._first_idle) is not None:
            self._wakeups[number].notify()

    def _serve(self, number: int) -> None:
        while self._wait_for_work(number):
            with self._gate():
                self._run_next(number)

    def _run_next(self, number: int) -> None:
        """Run the next batch, if anything still waits."""
        if (work := self._next(number)) is None:
            return
        queue, batch = work
        try:
            # Learn under full load only, because a batch that has the CPU to itself is faster than those of a backlog.
            queue.run_batch(batch, self._verdict_on, learn=self.parallel == len(self._threads))
        except BaseException as error:  # no error may end the thread, because it serves every job
            logger.critical("%s: the device thread caught %s", queue.name, type(error).__name__)
            for entry in batch:
                if not entry.future.done():
                    entry.future.set_exception(error)
        finally:
            with self._lock:
                del self._busy_since[number]

    def _wait_for_work(self, number: int) -> bool:
        """Wait until this is the first idle thread and an item is queued; return False if the batcher was closed."""
        wakeup = self._wakeups[number]
        with self._lock:
            while not self._closed and (number != self._first_idle or not any(self._queues)):
                wakeup.wait()
            if self._closed:
                for queue in self._queues:
                    queue.abandon(BatcherClosed("the worker is shutting down"))
                return False
            if self._max_wait_s:
                self._wait_for_full_batch(wakeup)
            return True

    def _next(self, number: int) -> tuple[BatchQueue[Any, Any], list[Entry[Any, Any]]] | None:
        """Remove and return the next batch with its queue; None if no item waits any longer."""
        with self._lock:
            for _ in range(0 if self._closed else len(self._queues)):
                queue = self._queues[0]
                self._queues.rotate(-1)
                if queue and (batch := queue.take()):
                    self._busy_since[number] = time.monotonic()
                    if any(self._queues):
                        self._wake_first_idle()
                    return queue, batch
        return None

    def _wait_for_full_batch(self, wakeup: threading.Condition) -> None:
        """Wait until a queue has a full batch or the oldest item has waited for `max_wait_s`."""
        deadline = min(queue.oldest_at for queue in self._queues) + self._max_wait_s
        while not self._closed and all(len(queue) < queue.limit for queue in self._queues):
            if (left_s := deadline - time.perf_counter()) <= 0:
                return
            wakeup.wait(left_s)
