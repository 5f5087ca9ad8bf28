"""A queue of items for one function that the device runs: forms batches, runs them, and handles those that fail.

While more items wait than fit into a batch, the ranks share the batch's places by weight; items of one rank run in
order of arrival. A batch whose function raises an error is halved until the item at fault runs alone, so one bad item
fails only itself. If memory ran out, the smaller size also becomes the queue's maximum; see
`worker.engine.batch_limit`. After a final error the queue retries nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, TypeVar

from worker.concurrency.turns import RankedQueue, Turns
from worker.engine.batch_limit import BatchLimit
from worker.engine.batch_size import BatchSize
from worker.runtime.tracebacks import release_memory

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Output = TypeVar("Output")
T = TypeVar("T")
#: What an error means for further batches, in this order: a smaller batch may fit; a batch without the item at fault
#: will run; no batch will run.
Verdict = Literal["out of memory", "one item's fault", "final"]
#: The weights of a queue that has only one rank.
ALIKE: Final[Mapping[Hashable, int]] = {None: 1}


@dataclass(frozen=True, slots=True)
class BatchResult(Generic[Output]):
    """One item's output, with the size and the times of the batch that computed it.

    Attributes:
        batch_size: the number of items in that batch.
        wait_ms: the time from the item's submission to the start of the batch.
        run_ms: the duration of the whole batch.
    """

    output: Output
    batch_size: int
    wait_ms: float
    run_ms: float


@dataclass(slots=True)
class Entry(Generic[Item, Output]):
    """A waiting item and the future that receives its result."""

    item: Item
    key: Hashable
    rank: Hashable
    future: Future[BatchResult[Output]]
    queued_at: float


class BatchQueue(Generic[Item, Output]):
    """A queue of items for one function; made by `Batcher.add_queue`.

    Any thread may call `submit` and read the length and `max_batch`. Only the batcher uses the other methods, under its
    lock except for `run_batch`.

    Attributes:
        size: chooses how many items the next batch has.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[Sequence[Item]], Sequence[Output]],
        max_batch: int,
        weights: Mapping[Any, int],
        size: BatchSize,
        enqueue: Callable[[BatchQueue[Any, Any], Entry[Any, Any]], None],
    ) -> None:
        self.name = name
        self._max_batch = BatchLimit(name, max_batch)
        self.size = size
        self._enqueue = enqueue
        self._run = run
        self._waiting: RankedQueue[Entry[Item, Output]] = RankedQueue(weights)
        # The first item of a batch determines the batch's key. First items have turns of their own, so no key starves.
        self._first: Turns[Hashable] = Turns(weights)
        self._following: Turns[Hashable] = Turns(weights)

    def submit(self, item: Item, key: Hashable = None, rank: Hashable = None) -> Future[BatchResult[Output]]:
        """Queue one item and return the future of its result.

        Cancelling the future before the item's batch starts removes the item. The future raises what the queue's
        function raised, or `BatcherClosed` if the batcher was closed.

        Args:
            key: only items with equal keys share a batch.
            rank: one of the ranks to which the queue gives weights.
        """
        future: Future[BatchResult[Output]] = Future()
        self._enqueue(self, Entry(item, key, rank, future, time.perf_counter()))
        return future

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def max_batch(self) -> int:
        """The number of items that fit into one batch."""
        return self._max_batch.now

    @property
    def limit(self) -> int:
        """The number of items that a batch may have if it starts now."""
        promised = self.size.promised
        oldest = min((head.queued_at for head in self._waiting.heads() if head.rank in promised), default=None)
        waited_s = 0.0 if oldest is None else time.perf_counter() - oldest
        return self.size.choose(self.max_batch, self._waiting.count(promised), waited_s)

    @property
    def oldest_at(self) -> float:
        """When the item that has waited longest arrived, by `time.perf_counter`; infinity if no item waits."""
        return min((head.queued_at for head in self._waiting.heads()), default=float("inf"))

    def put(self, entry: Entry[Item, Output]) -> None:
        """Append an entry."""
        self._waiting.put(entry, entry.rank)

    def take(self) -> list[Entry[Item, Output]]:
        """Remove and return the next batch; it is empty if all waiting items were cancelled.

        The batch begins with the oldest item of the rank whose turn it is; only items with the same key follow.
        """
        limit = self.limit
        batch: list[Entry[Item, Output]] = []
        others: list[Entry[Item, Output]] = []
        while len(batch) < limit and (entry := self._waiting.pop(self._following if batch else self._first)):
            if batch and entry.key != batch[0].key:
                others.append(entry)
            elif entry.future.set_running_or_notify_cancel():
                batch.append(entry)
        for entry in reversed(others):
            self._waiting.put_back(entry, entry.rank)
        return batch

    def abandon(self, error: Exception) -> None:
        """Fail all waiting items with this error."""
        while entry := self._waiting.pop(self._first):
            if entry.future.set_running_or_notify_cancel():
                entry.future.set_exception(error)

    def run_batch(
        self, batch: list[Entry[Item, Output]], verdict_on: Callable[[Exception], Verdict], *, learn: bool
    ) -> None:
        """Run one batch, and its parts if it fails, and resolve the future of each item.

        Args:
            verdict_on: returns what an error means for further batches.
            learn: whether `size` learns from this batch's duration.
        """
        parts = [batch]
        while parts:
            part = parts.pop()
            if len(part) > self.max_batch:  # an earlier part did not fit
                parts += _cut(part, self.max_batch)
                continue
            # `_run_one` returns the error instead of raising it, so that its frames are freed before the parts run.
            if (error := self._run_one(part, learn=learn)) is None:
                continue
            release_memory(error)
            verdict = verdict_on(error)
            if verdict == "out of memory":
                self._max_batch.did_not_fit(len(part))
            if verdict == "final":
                for entry in (entry for unanswered in [part, *reversed(parts)] for entry in unanswered):
                    entry.future.set_exception(error)
                return
            if len(part) == 1:
                part[0].future.set_exception(error)
                continue
            if verdict != "out of memory":
                logger.warning(
                    "%s: a batch of %d failed with %s, halving it", self.name, len(part), type(error).__name__
                )
            parts += _cut(part, (len(part) + 1) // 2)

    def _run_one(self, batch: list[Entry[Item, Output]], *, learn: bool) -> Exception | None:
        """Run a batch and resolve its items' futures; if it fails, return the error and resolve none."""
        started = time.perf_counter()
        try:
            outputs = self._run([entry.item for entry in batch])
            if len(outputs) != len(batch):
                raise RuntimeError(f"{self.name}: {len(batch)} items went in, {len(outputs)} came out")
        except Exception as error:
            return error
        run_s = time.perf_counter() - started
        for entry, output in zip(batch, outputs, strict=True):
            wait_ms = max(0.0, (started - entry.queued_at) * 1000)
            entry.future.set_result(BatchResult(output, len(batch), wait_ms, run_s * 1000))
        self._max_batch.did_fit(len(batch))
        if learn:
            self.size.learn(len(batch), run_s)
        return None


def _cut(batch: list[T], size: int) -> list[list[T]]:
    """Cut a batch into parts of this size, the last one first."""
    return [batch[first : first + size] for first in range(0, len(batch), size)][::-1]
