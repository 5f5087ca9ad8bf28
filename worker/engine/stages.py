"""Runs the stages that can crash the process: forward passes, tokenisation, preparation in native code.

Ordinary jobs run their stages concurrently. A suspect's stage runs alone, which `worker.concurrency.isolation` ensures.
Downloads and confined decoders cannot crash the process, so they are not stages.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, cast

from worker.concurrency.cancel_scope import CancelScope, Suspect
from worker.concurrency.isolation import Isolation
from worker.concurrency.shares import WEIGHTS
from worker.concurrency.threads import run_in_short_lived_thread
from worker.engine.batch_queue import BatchResult
from worker.engine.batcher import Batcher
from worker.engine.failures import result_within, verdict_on

#: A suspect has this many times as many turns as a suspect with one more death. If several jobs kill workers, each has
#: more deaths than the innocent jobs that the workers also held, so the innocent jobs are answered in between.
TURNS_PER_DEATH: Final = 4
#: From this many deaths on, all suspects of a queue have equally many turns.
MOST_DEATHS: Final = 5

T = TypeVar("T")
Item = TypeVar("Item")
Output = TypeVar("Output")


class Stages:
    """Runs stages concurrently, or alone for suspects. Thread-safe.

    Args:
        isolation: decides which stages may run concurrently.
    """

    def __init__(self, isolation: Isolation | None = None) -> None:
        self._isolation = isolation or Isolation()
        self._alone = Batcher(verdict_on=verdict_on)
        self._work: SuspectQueue[Callable[[], Any], Any] = self.add_queue("stages alone", lambda work: [work[0]()], 1)
        self._alone_since_s: float | None = None
        self._alone.start()

    def together(self) -> AbstractContextManager[None]:
        """Return the context in which ordinary jobs run a stage."""
        return self._isolation.together()

    def run(self, work: Callable[[], T], scope: CancelScope) -> T:
        """Return the result of the work, run as an ordinary stage, or alone if the scope is a suspect's.

        A suspect's clock is paused until its turn.

        Raises:
            JobFailed: ``deadline_exceeded``: the deadline passed before the work's turn or, for a suspect, its end.
            Cancelled: the scope was cancelled.
        """
        if scope.suspect is None:
            with self._isolation.together(scope):
                return work()
        too_late = "the worker could not finish this job's work within the job's time."
        return cast(T, result_within(self._work.submit(work, scope), scope, too_late).output)

    def add_queue(
        self, name: str, run: Callable[[Sequence[Item]], Sequence[Output]], max_batch: int
    ) -> SuspectQueue[Item, Output]:
        """Add a queue of suspects' items; ``run`` gets 1 to ``max_batch`` items of one suspect."""
        return SuspectQueue(self._alone, self._isolated, name, run, max_batch)

    @property
    def busy_s(self) -> float:
        """Seconds since a suspect's stage began to run alone; 0 while none does."""
        since_s = self._alone_since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    def close(self) -> None:
        """End the suspects' thread and fail the items that wait for it."""
        self._alone.close(timeout_s=5)

    def _isolated(self, suspect: Suspect, scope: CancelScope, work: Callable[[], T]) -> T:
        with self._isolation.alone(suspect.mark, scope):
            self._alone_since_s = time.monotonic()
            try:
                return run_in_short_lived_thread(work, "alone")
            finally:
                self._alone_since_s = None


@dataclass(frozen=True, slots=True)
class _WaitingItem(Generic[Item]):
    """A suspect's waiting item, and the function that resumes the suspect's clock."""

    item: Item
    suspect: Suspect
    scope: CancelScope
    resume: Callable[[], None]


class SuspectQueue(Generic[Item, Output]):
    """A queue of suspects' items for one function; made by `Stages.add_queue`."""

    def __init__(
        self,
        batcher: Batcher,
        isolated: Callable[[Suspect, CancelScope, Callable[[], Sequence[Output]]], Sequence[Output]],
        name: str,
        run: Callable[[Sequence[Item]], Sequence[Output]],
        max_batch: int,
    ) -> None:
        self._isolated = isolated
        self._run = run
        ranks = {
            (queue, deaths): weight * TURNS_PER_DEATH ** (MOST_DEATHS - deaths)
            for queue, weight in WEIGHTS.items()
            for deaths in range(MOST_DEATHS + 1)
        }
        self._queue = batcher.add_queue(name, self._run_alone, max_batch, ranks)

    def submit(self, item: Item, scope: CancelScope) -> Future[BatchResult[Output]]:
        """Queue a suspect's item, like `BatchQueue.submit`; the scope's clock is paused until the item's turn."""
        suspect = scope.suspect
        if suspect is None:
            raise ValueError("only suspects run alone")
        resume = scope.pause_clock()
        rank = suspect.queue, min(suspect.deaths, MOST_DEATHS)
        future = self._queue.submit(_WaitingItem(item, suspect, scope, resume), suspect.mark, rank)
        future.add_done_callback(lambda _: resume())  # the item may be cancelled before its turn
        return future

    def _run_alone(self, waiting: Sequence[_WaitingItem[Item]]) -> Sequence[Output]:
        def work() -> Sequence[Output]:
            for each in waiting:
                each.resume()
            return self._run([each.item for each in waiting])

        return self._isolated(waiting[0].suspect, waiting[0].scope, work)
