"""A queue of items for one function of the device: who rides in which batch, and what a failing batch does to them.

Within a lane the ranks share the places by weight while more items wait than fit; items of one rank go in the order in
which they came. A batch that raises is halved until the culprit stands alone, so one bad item fails only itself; on
out-of-memory the smaller size also becomes the lane's maximum, see `worker.engine.batch_limit`. After an error that is
final nothing is tried again.
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
#: What an error says of other batches: a smaller one may fit; those without the culprit will run; none will.
Verdict = Literal["out of memory", "one item's fault", "final"]
#: The weights of a lane whose items are all alike.
ALIKE: Final[Mapping[Hashable, int]] = {None: 1}


@dataclass(frozen=True, slots=True)
class BatchResult(Generic[Output]):
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
class Entry(Generic[Item, Output]):
    """One item that waits, and the future that it is answered with."""

    item: Item
    key: Hashable
    rank: Hashable
    future: Future[BatchResult[Output]]
    queued_at: float


class BatchQueue(Generic[Item, Output]):
    """A queue of items for one function; made by `Batcher.lane`.

    All but `submit` is for the batcher, which holds its lock meanwhile except while a batch rides.

    Attributes:
        size: chooses how many of those a batch has.
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
        # Who begins a batch decides on its key: dealt by itself, so that no key starves whatever the others do.
        self._first: Turns[Hashable] = Turns(weights)
        self._following: Turns[Hashable] = Turns(weights)

    def submit(self, item: Item, key: Hashable = None, rank: Hashable = None) -> Future[BatchResult[Output]]:
        """Queue one item; only items of equal key share a batch. The rank is one of the lane's weights.

        Cancelling the future before its batch starts takes the item out.

        Raises:
            BatcherClosed: the device thread has ended.
        """
        future: Future[BatchResult[Output]] = Future()
        self._enqueue(self, Entry(item, key, rank, future, time.perf_counter()))
        return future

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def max_batch(self) -> int:
        """Items that fit into one batch."""
        return self._max_batch.now

    @property
    def limit(self) -> int:
        """Items that a batch may have which starts now."""
        promised = self.size.promised
        oldest = min((head.queued_at for head in self._waiting.heads() if head.rank in promised), default=None)
        waited_s = 0.0 if oldest is None else time.perf_counter() - oldest
        return self.size.choose(self.max_batch, self._waiting.count(promised), waited_s)

    @property
    def oldest_at(self) -> float:
        """When the item came that waits longest, by `time.perf_counter`; infinite when none waits."""
        return min((head.queued_at for head in self._waiting.heads()), default=float("inf"))

    def put(self, passenger: Entry[Item, Output]) -> None:
        """Add an item."""
        self._waiting.put(passenger, passenger.rank)

    def take(self) -> list[Entry[Item, Output]]:
        """The next batch: the oldest item of the rank whose turn it is, and by turns those with the same key."""
        limit = self.limit
        batch: list[Entry[Item, Output]] = []
        others: list[Entry[Item, Output]] = []
        while len(batch) < limit and (passenger := self._waiting.pop(self._following if batch else self._first)):
            if batch and passenger.key != batch[0].key:
                others.append(passenger)
            elif passenger.future.set_running_or_notify_cancel():
                batch.append(passenger)
        for passenger in reversed(others):
            self._waiting.put_back(passenger, passenger.rank)
        return batch

    def abandon(self, error: Exception) -> None:
        """Fail all that wait."""
        while passenger := self._waiting.pop(self._first):
            if passenger.future.set_running_or_notify_cancel():
                passenger.future.set_exception(error)

    def ride(self, batch: list[Entry[Item, Output]], judge: Callable[[Exception], Verdict], *, learn: bool) -> None:
        """Run one batch, or its parts where it fails, and answer each of its futures.

        Args:
            learn: whether what it takes is what a batch takes while items wait.
        """
        parts = [batch]
        while parts:
            part = parts.pop()
            if len(part) > self.max_batch:  # one before it did not fit
                parts += _cut(part, self.max_batch)
                continue
            # Returned and not handled where it was caught: the parts run when its frames are empty.
            if (error := self._run_one(part, learn=learn)) is None:
                continue
            release_memory(error)
            verdict = judge(error)
            if verdict == "out of memory":
                self._max_batch.did_not_fit(len(part))
            if verdict == "final":
                for passenger in (passenger for left in [part, *reversed(parts)] for passenger in left):
                    passenger.future.set_exception(error)
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
        """Answer all of a batch, or none; then with the error."""
        started = time.perf_counter()
        try:
            outputs = self._run([passenger.item for passenger in batch])
            if len(outputs) != len(batch):
                raise RuntimeError(f"{self.name}: {len(batch)} items went in, {len(outputs)} came out")
        except Exception as error:
            return error
        run_s = time.perf_counter() - started
        for passenger, output in zip(batch, outputs, strict=True):
            wait_ms = max(0.0, (started - passenger.queued_at) * 1000)
            passenger.future.set_result(BatchResult(output, len(batch), wait_ms, run_s * 1000))
        self._max_batch.did_fit(len(batch))
        if learn:
            self.size.learn(len(batch), run_s)
        return None


def _cut(batch: list[T], size: int) -> list[list[T]]:
    """In parts of this size, the last one first."""
    return [batch[first : first + size] for first in range(0, len(batch), size)][::-1]
