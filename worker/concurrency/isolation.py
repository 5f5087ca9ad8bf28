"""A lock under which ordinary jobs' stages run concurrently, but a suspect's stage runs alone.

A stage is a step of a job's work that can kill the process, such as a forward pass (`worker.engine.stages`). So if the
process dies while a suspect's stage runs alone, that suspect killed it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final

from producer.errors import JobFailed
from worker.concurrency.cancel_scope import CancelScope

#: How long the first suspect of a worker process waits: long enough to download most images, and short enough for a
#: worker that loses this time after each start, because suspects kill it repeatedly.
HEAD_START_S: Final = 2.0


class Isolation:
    """A lock that ordinary stages share, and that a suspect's stage holds exclusively.

    Ordinary stages and suspects take turns. While a suspect waits, the first ordinary stage that ends closes the lock:
    no further ordinary stage begins, and the suspect's stage begins when the running ones have ended. When the
    suspect's stage ends, all ordinary stages that wait by then run next, however many suspects wait.

    Args:
        marked: returns, for a suspect's mark, the context in which its stage runs alone.
        head_start_s: how long the first suspect of a process waits. In this time the worker can finish the ordinary
            jobs that it took together with that suspect, so they are answered even if each process is killed by its
            first suspect.
    """

    def __init__(
        self,
        marked: Callable[[str], AbstractContextManager[object]] = lambda _: nullcontext(),
        *,
        head_start_s: float = 0.0,
    ) -> None:
        self._marked = marked
        self._head_start_s = head_start_s
        self._suspects_from_s: float | None = None
        self._changed = threading.Condition()
        self._running = 0
        #: The number of ordinary stages that wait for a turn, and the number of turns that ordinary stages have had.
        self._waiting = 0
        self._turns = 0
        self._suspects_waiting = 0
        #: While the lock is closed, no ordinary stage begins, because a suspect's stage runs or is the next to run.
        self._is_closed = False
        self._is_alone = False

    @property
    def has_exclusive_waiters(self) -> bool:
        """Whether any suspect waits for its turn."""
        return self._suspects_waiting > 0

    @property
    def waiting(self) -> int:
        """The number of ordinary stages that wait for their turn."""
        return self._waiting

    @contextmanager
    def together(self, scope: CancelScope | None = None) -> Iterator[None]:
        """Hold the lock for an ordinary stage; other ordinary stages may hold it too, but no suspect's stage.

        Args:
            scope: ends the wait for a turn; with None the wait has no limit.

        Raises:
            JobFailed: ``deadline_exceeded``: the deadline passed before the stage's turn.
            Cancelled: the scope was cancelled before the stage's turn.
        """
        with self._changed:
            if self._is_closed:
                self._wait_for_the_turn(scope)
            else:
                self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._end_one()

    @contextmanager
    def alone(self, mark: str, scope: CancelScope) -> Iterator[None]:
        """Hold the lock exclusively for the suspect with this mark.

        Args:
            scope: its cancellation ends the wait; its deadline does not, because a suspect's clock is paused meanwhile.

        Raises:
            Cancelled: the scope was cancelled before the suspect's turn.
        """
        with self._changed:
            self._wait_to_be_alone(scope)
        try:
            with self._marked(mark):
                yield
        finally:
            with self._changed:
                self._is_alone = False
                self._open()

    def _wait_to_be_alone(self, scope: CancelScope) -> None:
        def is_free() -> bool:
            return not (self._is_alone or self._running)

        self._wait_for_the_head_start(scope)
        self._suspects_waiting += 1
        if not is_free():
            scope.on_cancel(self._notify)
        self._changed.wait_for(lambda: is_free() or scope.is_cancelled)
        self._suspects_waiting -= 1
        if scope.is_cancelled:
            if not self._suspects_waiting and not self._is_alone:
                self._open()
            scope.check()
        self._is_closed = self._is_alone = True

    def _wait_for_the_head_start(self, scope: CancelScope) -> None:
        """Wait until the process's only head start is over; until then ordinary stages run as if no suspect waited."""
        if self._suspects_from_s is None:
            self._suspects_from_s = time.monotonic() + self._head_start_s
        if time.monotonic() < self._suspects_from_s:
            scope.on_cancel(self._notify)
        while (left_s := self._suspects_from_s - time.monotonic()) > 0 and not scope.is_cancelled:
            self._changed.wait(left_s)
        scope.check()

    def _open(self) -> None:
        """Let all waiting ordinary stages run at once, so that no suspect overtakes them."""
        self._is_closed = False
        self._running, self._waiting = self._running + self._waiting, 0
        self._turns += 1
        self._changed.notify_all()

    def _wait_for_the_turn(self, scope: CancelScope | None) -> None:
        """Wait for the next turn of ordinary stages; on return, this stage counts as running."""
        if scope is not None:
            scope.on_cancel(self._notify)
        before = self._turns
        self._waiting += 1
        while self._turns == before and (scope is None or not scope.is_over):
            self._changed.wait(None if scope is None else min(scope.left_s, threading.TIMEOUT_MAX))
        if scope is None or not scope.is_over:
            return
        if self._turns == before:
            self._waiting -= 1
        else:
            self._end_one()
        scope.check()
        raise JobFailed("deadline_exceeded", "the worker could not begin this job's work within the job's time.")

    def _end_one(self) -> None:
        self._running -= 1
        self._is_closed = self._is_alone or self._suspects_waiting > 0
        if not self._running:
            self._changed.notify_all()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()
