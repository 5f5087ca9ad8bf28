"""Dynamic batching across jobs: device threads run whatever has queued up.

The batcher knows nothing of images, torch or Celery. It has one *queue* per kind of work (images, prompts), each with
its own function and maximum batch. Unless ``max_wait_s`` is set, an idle thread never waits while something is queued:
arrivals gather while all threads are busy. A GPU has one such thread, a CPU several. The first idle thread takes the
next batch, so that lone batches always run in the same thread, which keeps its PyTorch helper threads. The queues take
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

from worker.engine.batch_queue import ALIKE, BatchQueue, Entry, Item, Output, Verdict
from worker.engine.batch_size import BatchSize

logger = logging.getLogger(__name__)


class BatcherClosed(RuntimeError):
    """The device threads have ended and will compute nothing more."""


class Batcher:
    """The device's threads and its queues.

    Args:
        threads: batches that run at once.
        max_wait_s: how long an idle thread waits for a batch to fill up; 0 never waits.
        judge: decides what an error of one batch means for others.
        gate: a thread takes and runs each batch inside this context. Entering may block; the batch is chosen
            afterwards, among all items that have arrived by then.
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
        self._queues: deque[BatchQueue[Any, Any]] = deque()
        self._lock = threading.Lock()
        self._closed = False
        #: Start of each running batch by its thread's number, oldest first.
        self._busy_since: dict[int, float] = {}
        self._threads = [
            threading.Thread(target=self._serve, args=(number,), name=f"device-{number}", daemon=True)
            for number in range(threads)
        ]
        #: One condition per thread, notified when there is work, or more work, for it.
        self._calls = [threading.Condition(self._lock) for _ in range(threads)]

    def add_queue(
        self,
        name: str,
        run: Callable[[Sequence[Item]], Sequence[Output]],
        max_batch: int,
        weights: Mapping[Any, int] = ALIKE,
        size: BatchSize | None = None,
    ) -> BatchQueue[Item, Output]:
        """Add a queue. ``run`` gets 1 to ``max_batch`` items and returns as many outputs, in the same order.

        Args:
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
        """Finish the running batches, fail waiting items with `BatcherClosed`, and end the threads."""
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
        """Batches that run now or are ready to: a batch that starts shares the cores with as many."""
        with self._lock:
            ready = sum(-(-len(queue) // queue.limit) for queue in self._queues)
            return max(1, min(len(self._threads), len(self._busy_since) + ready))

    def _enqueue(self, queue: BatchQueue[Any, Any], entry: Entry[Any, Any]) -> None:
        with self._lock:
            if not self._closed:
                queue.put(entry)
                self._call_the_first()
                return
        entry.future.set_exception(BatcherClosed("the device thread has ended"))

    @property
    def _first_idle(self) -> int | None:
        return next((number for number in range(len(self._threads)) if number not in self._busy_since), None)

    def _call_the_first(self) -> None:
        if (number := self._first_idle) is not None:
            self._calls[number].notify()

    def _serve(self, number: int) -> None:
        while self._is_called(number):
            with self._gate():
                self._run_next(number)

    def _run_next(self, number: int) -> None:
        """Run the next batch, if anything still waits."""
        if (work := self._next(number)) is None:
            return
        queue, batch = work
        try:
            # Learn under full load only: a batch that has the CPU to itself is quicker than those of a backlog.
            queue.run_batch(batch, self._judge, learn=self.parallel == len(self._threads))
        except BaseException as error:  # the thread serves every job, so nothing may end it
            logger.critical("%s: the device thread caught %s", queue.name, type(error).__name__)
            for entry in batch:
                if not entry.future.done():
                    entry.future.set_exception(error)
        finally:
            with self._lock:
                del self._busy_since[number]

    def _is_called(self, number: int) -> bool:
        """Block until this is the first idle thread and work is queued; return False once closed."""
        call = self._calls[number]
        with self._lock:
            while not self._closed and (number != self._first_idle or not any(self._queues)):
                call.wait()
            if self._closed:
                for queue in self._queues:
                    queue.abandon(BatcherClosed("the worker is shutting down"))
                return False
            if self._max_wait_s:
                self._let_it_grow(call)
            return True

    def _next(self, number: int) -> tuple[BatchQueue[Any, Any], list[Entry[Any, Any]]] | None:
        """Take the batch whose turn it is; None if all waiting items were cancelled."""
        with self._lock:
            for _ in range(0 if self._closed else len(self._queues)):
                queue = self._queues[0]
                self._queues.rotate(-1)
                if queue and (batch := queue.take()):
                    self._busy_since[number] = time.monotonic()
                    if any(self._queues):
                        self._call_the_first()
                    return queue, batch
        return None

    def _let_it_grow(self, call: threading.Condition) -> None:
        """Wait until a queue has a full batch or its oldest item has waited long enough."""
        deadline = min(queue.oldest_at for queue in self._queues) + self._max_wait_s
        while not self._closed and all(len(queue) < queue.limit for queue in self._queues):
            if (left_s := deadline - time.perf_counter()) <= 0:
                return
            call.wait(left_s)
