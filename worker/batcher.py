"""Device threads that take whatever has gathered: batching across jobs.

Generic: it knows nothing of images, torch or Celery. Work is put into *lanes* (images, prompts), each with its
own function and maximal batch. A thread never waits while it is idle and something is queued; arrivals gather
while all are busy. A GPU has one such thread, the cores of a CPU several. Lanes take
turns, so that a thousand new labels delay an image by one batch of labels at most. Within a lane the ranks share the
places by weight while more items wait than fit; items of one rank go in the order in which they came.

A batch that raises is halved until the culprit stands alone, so one bad item fails only itself; on
out-of-memory the smaller size is also remembered as the lane's new maximum.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from worker.turns import RankedQueue, Turns

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Output = TypeVar("Output")
#: The weights of a lane whose items are all alike.
ALIKE: Final[Mapping[Hashable, int]] = {None: 1}


class BatcherClosed(RuntimeError):
    """The device thread has ended; nothing more will be computed by it."""


@dataclass(frozen=True, slots=True)
class Ride(Generic[Output]):
    """What one item got from the batch it rode in.

    Attributes:
        batch_size: items in that batch.
        wait_ms: from submission to the start of the batch.
        run_ms: what the whole batch took.
    """

    output: Output
    batch_size: int
    wait_ms: float
    run_ms: float


@dataclass(slots=True)
class _Passenger(Generic[Item, Output]):
    item: Item
    key: Hashable
    rank: Hashable
    future: Future[Ride[Output]]
    queued_at: float


class Lane(Generic[Item, Output]):
    """A queue of items for one function; made by `Batcher.lane`."""

    def __init__(
        self,
        batcher: Batcher,
        name: str,
        run: Callable[[Sequence[Item]], Sequence[Output]],
        max_batch: int,
        weights: Mapping[Any, int],
    ) -> None:
        self.name = name
        self.max_batch = max_batch
        self._batcher = batcher
        self._run = run
        self._waiting: RankedQueue[_Passenger[Item, Output]] = RankedQueue(weights)
        # Who begins a batch decides on its key: dealt by itself, so that no key starves whatever the others do.
        self._first: Turns[Hashable] = Turns(weights)
        self._following: Turns[Hashable] = Turns(weights)

    def submit(self, item: Item, key: Hashable = None, rank: Hashable = None) -> Future[Ride[Output]]:
        """Queue one item; only items of equal key share a batch. The rank is one of the lane's weights.

        Cancelling the future before its batch starts takes the item out.

        Raises:
            BatcherClosed: the device thread has ended.
        """
        return self._batcher._enqueue(self, item, key, rank)

    def __len__(self) -> int:
        return len(self._waiting)

    def _take(self) -> list[_Passenger[Item, Output]]:
        """The next batch: the oldest item of the rank whose turn it is, and by turns those with the same key."""
        batch: list[_Passenger[Item, Output]] = []
        others: list[_Passenger[Item, Output]] = []
        while len(batch) < self.max_batch and (
            passenger := self._waiting.pop(self._following if batch else self._first)
        ):
            if batch and passenger.key != batch[0].key:
                others.append(passenger)
            elif passenger.future.set_running_or_notify_cancel():
                batch.append(passenger)
        for passenger in reversed(others):
            self._waiting.put_back(passenger, passenger.rank)
        return batch

    def _ride(self, batch: list[_Passenger[Item, Output]], is_out_of_memory: Callable[[Exception], bool]) -> None:
        """Run one batch and answer each of its futures."""
        started = time.perf_counter()
        try:
            outputs = self._run([passenger.item for passenger in batch])
            if len(outputs) != len(batch):
                raise RuntimeError(f"{self.name}: {len(batch)} items went in, {len(outputs)} came out")
        except Exception as error:
            self._recover(batch, error, is_out_of_memory)
            return
        run_ms = (time.perf_counter() - started) * 1000
        for passenger, output in zip(batch, outputs, strict=True):
            wait_ms = max(0.0, (started - passenger.queued_at) * 1000)
            passenger.future.set_result(Ride(output, len(batch), wait_ms, run_ms))

    def _recover(
        self, batch: list[_Passenger[Item, Output]], error: Exception, is_out_of_memory: Callable[[Exception], bool]
    ) -> None:
        if len(batch) == 1:
            batch[0].future.set_exception(error)
            return
        half = (len(batch) + 1) // 2
        if is_out_of_memory(error):
            self.max_batch = min(self.max_batch, half)
            logger.warning("%s: out of memory at batch %d, at most %d from now on", self.name, len(batch), half)
        else:
            logger.warning("%s: a batch of %d failed with %s, halving it", self.name, len(batch), type(error).__name__)
        # Leaving the except block first drops the traceback, whose frames hold the failed batch's memory.
        error.__traceback__ = None
        self._ride(batch[:half], is_out_of_memory)
        self._ride(batch[half:], is_out_of_memory)


class Batcher:
    """The device's threads and its lanes.

    Args:
        threads: batches that run at once.
        max_wait_s: how long an idle thread lets a batch grow that is not full yet; 0 never waits.
        is_out_of_memory: tells a device's out-of-memory error from any other.
    """

    def __init__(
        self,
        *,
        threads: int = 1,
        max_wait_s: float = 0.0,
        is_out_of_memory: Callable[[Exception], bool] = lambda _: False,
    ) -> None:
        self._max_wait_s = max_wait_s
        self._is_out_of_memory = is_out_of_memory
        self._lanes: deque[Lane[Any, Any]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        #: When each running batch began, by its thread; in order, so that the oldest stands first.
        self._busy_since: dict[int, float] = {}
        self._threads = [
            threading.Thread(target=self._serve, name=f"device-{number}", daemon=True) for number in range(threads)
        ]

    def lane(
        self,
        name: str,
        run: Callable[[Sequence[Item]], Sequence[Output]],
        max_batch: int,
        weights: Mapping[Any, int] = ALIKE,
    ) -> Lane[Item, Output]:
        """Add a lane; ``run`` gets 1 to ``max_batch`` items and returns as many outputs, in the same order."""
        lane = Lane(self, name, run, max_batch, weights)
        self._lanes.append(lane)
        return lane

    def start(self) -> None:
        """Start the device's threads."""
        for thread in self._threads:
            thread.start()

    def close(self, timeout_s: float | None = None) -> None:
        """Finish the running batches, fail what still waits with `BatcherClosed`, and end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
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
        with self._changed:
            ready = sum(-(-len(lane) // lane.max_batch) for lane in self._lanes)
            return max(1, min(len(self._threads), len(self._busy_since) + ready))

    def _enqueue(self, lane: Lane[Item, Output], item: Item, key: Hashable, rank: Hashable) -> Future[Ride[Output]]:
        future: Future[Ride[Output]] = Future()
        with self._changed:
            if self._closed:
                raise BatcherClosed("the device thread has ended")
            lane._waiting.put(_Passenger(item, key, rank, future, time.perf_counter()), rank)
            self._changed.notify()
        return future

    def _serve(self) -> None:
        while (work := self._next()) is not None:
            lane, batch = work
            try:
                lane._ride(batch, self._is_out_of_memory)
            except BaseException as error:  # the thread serves every job: nothing may end it
                logger.critical("%s: the device thread caught %s", lane.name, type(error).__name__)
                for passenger in batch:
                    if not passenger.future.done():
                        passenger.future.set_exception(error)
            finally:
                with self._changed:
                    del self._busy_since[threading.get_ident()]
            del batch, work

    def _next(self) -> tuple[Lane[Any, Any], list[_Passenger[Any, Any]]] | None:
        """Wait for work; None when the batcher was closed."""
        with self._changed:
            while True:
                while not self._closed and not any(self._lanes):
                    self._changed.wait()
                if self._closed:
                    self._abandon()
                    return None
                if self._max_wait_s:
                    self._let_it_grow()
                for _ in range(len(self._lanes)):
                    lane = self._lanes[0]
                    self._lanes.rotate(-1)
                    if lane and (batch := lane._take()):
                        self._busy_since[threading.get_ident()] = time.monotonic()
                        return lane, batch

    def _let_it_grow(self) -> None:
        """Wait until a lane has a full batch or its oldest item has waited long enough."""
        oldest = min(head.queued_at for lane in self._lanes for head in lane._waiting.heads())
        deadline = oldest + self._max_wait_s
        while not self._closed and all(len(lane) < lane.max_batch for lane in self._lanes):
            if (left_s := deadline - time.perf_counter()) <= 0:
                return
            self._changed.wait(left_s)

    def _abandon(self) -> None:
        for lane in self._lanes:
            while passenger := lane._waiting.pop(lane._first):
                if passenger.future.set_running_or_notify_cancel():
                    passenger.future.set_exception(BatcherClosed("the worker is shutting down"))
