"""Runs the stages that can crash the process: forward passes, tokenisation, preparation in native code.

Ordinary jobs run them concurrently, each in its own thread. Suspects run them in one thread, each with nothing else
running, which `worker.concurrency.isolation` enforces. Downloads and confined decoders cannot crash the process and are
not stages.
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
from worker.engine.failures import judge, result_within

#: A suspect has this many times the turns of one with one more death. Of several jobs that end workers each has more
#: deaths than the jobs next to it, which are answered in between.
FEWER_DEATHS: Final = 4
#: From this many deaths on all suspects of a queue take turns alike.
MOST_DEATHS: Final = 5

T = TypeVar("T")
Item = TypeVar("Item")
Output = TypeVar("Output")


class Stages:
    """Runs stages concurrently, or alone for suspects. Thread-safe.

    Args:
        isolation: decides what may run concurrently.
    """

    def __init__(self, isolation: Isolation | None = None) -> None:
        self._isolation = isolation or Isolation()
        self._alone = Batcher(judge=judge)
        self._work: SuspectQueue[Callable[[], Any], Any] = self.add_queue("stages alone", lambda work: [work[0]()], 1)
        self._alone_since_s: float | None = None
        self._alone.start()

    def together(self) -> AbstractContextManager[None]:
        """Return the context in which ordinary jobs run a stage."""
        return self._isolation.together()

    def run(self, work: Callable[[], T], scope: CancelScope) -> T:
        """Do the work concurrently with others, or alone if the scope is a suspect's, whose clock stops until its turn.

        Raises:
            JobFailed: ``deadline_exceeded`` before its turn.
            Cancelled: the scope was cancelled.
        """
        if scope.suspect is None:
            with self._isolation.together(scope):
                return work()
        too_late = "the worker did not get to this job's work within its time."
        return cast(T, result_within(self._work.submit(work, scope), scope, too_late).output)

    def add_queue(
        self, name: str, run: Callable[[Sequence[Item]], Sequence[Output]], max_batch: int
    ) -> SuspectQueue[Item, Output]:
        """Add a queue of suspects' items; ``run`` gets 1 to ``max_batch`` items of one suspect."""
        return SuspectQueue(self._alone, self._isolated, name, run, max_batch)

    @property
    def busy_s(self) -> float:
        """Seconds that a suspect's current stage has taken so far; 0 while there is none."""
        since_s = self._alone_since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    def close(self) -> None:
        """End the suspects' thread and fail what still waits there."""
        self._alone.close(timeout_s=5)

    def _isolated(self, suspect: Suspect, scope: CancelScope, work: Callable[[], T]) -> T:
        with self._isolation.alone(suspect.mark, scope):
            self._alone_since_s = time.monotonic()
            try:
                return run_in_short_lived_thread(work, "alone")
            finally:
                self._alone_since_s = None


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[Item]):
    """A suspect's item, and the function that restarts its clock."""

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
            (queue, deaths): weight * FEWER_DEATHS ** (MOST_DEATHS - deaths)
            for queue, weight in WEIGHTS.items()
            for deaths in range(MOST_DEATHS + 1)
        }
        self._queue = batcher.add_queue(name, self._run_alone, max_batch, ranks)

    def submit(self, item: Item, scope: CancelScope) -> Future[BatchResult[Output]]:
        """Queue a suspect's item, like `BatchQueue.submit`. The scope's clock stops until its turn."""
        suspect = scope.suspect
        if suspect is None:
            raise ValueError("only suspects run alone")
        resume = scope.pause_clock()
        rank = suspect.queue, min(suspect.deaths, MOST_DEATHS)
        future = self._queue.submit(_Waiting(item, suspect, scope, resume), suspect.mark, rank)
        future.add_done_callback(lambda _: resume())  # it may be cancelled before its turn
        return future

    def _run_alone(self, waiting: Sequence[_Waiting[Item]]) -> Sequence[Output]:
        def work() -> Sequence[Output]:
            for each in waiting:
                each.resume()
            return self._run([each.item for each in waiting])

        return self._isolated(waiting[0].suspect, waiting[0].scope, work)
