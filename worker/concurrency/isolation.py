"""Stages that can end the process, side by side; those of suspects alone, by turns with the others.

A process that dies while a suspect's stage runs alone was ended by it. All that can end no process goes on meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from producer.errors import JobFailed
from worker.concurrency.cancel_scope import CancelScope


class Isolation:
    """A lock that ordinary stages share, and that a suspect's stage has for itself.

    They take turns. Once a suspect waits, the first ordinary stage that ends is the last of its turn: none begins any
    more, and the suspect's begins when those that run have ended. What came to wait by the end of that has the next
    turn, however many suspects wait.

    Args:
        marked: given the mark of what runs alone, what it is in meanwhile; only when nothing runs beside it.
    """

    def __init__(self, marked: Callable[[str], AbstractContextManager[object]] = lambda _: nullcontext()) -> None:
        self._marked = marked
        self._changed = threading.Condition()
        self._running = 0
        #: Ordinary stages that wait for their next turn, and how many turns they have had.
        self._waiting = 0
        self._turns = 0
        self._suspects_waiting = 0
        #: No ordinary stage begins: a suspect's runs, or will when those that run have ended.
        self._is_closed = False
        self._is_alone = False

    @property
    def has_exclusive_waiters(self) -> bool:
        """Whether a suspect waits for its turn."""
        return self._suspects_waiting > 0

    @property
    def waiting(self) -> int:
        """Ordinary stages that wait for their turn."""
        return self._waiting

    @contextmanager
    def together(self, scope: CancelScope | None = None) -> Iterator[None]:
        """Run beside others, but beside no suspect.

        Args:
            scope: ends the wait for the turn; None waits however long it takes.

        Raises:
            JobFailed: ``deadline_exceeded``, before its turn.
            Cancelled: the scope was cancelled before its turn.
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
        """Run with nothing beside it, as what the mark says.

        Args:
            scope: only cancelling it ends the wait for the turn: a suspect's clock stands meanwhile.

        Raises:
            Cancelled: the scope was cancelled before its turn.
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

    def _open(self) -> None:
        """Give ordinary stages a turn; no suspect can get ahead of those that wait for it now."""
        self._is_closed = False
        self._running, self._waiting = self._running + self._waiting, 0
        self._turns += 1
        self._changed.notify_all()

    def _wait_for_the_turn(self, scope: CancelScope | None) -> None:
        """Return as one of those that run."""
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
        raise JobFailed("deadline_exceeded", "the worker did not get to this job's work within its time.")

    def _end_one(self) -> None:
        self._running -= 1
        self._is_closed = self._is_alone or self._suspects_waiting > 0
        if not self._running:
            self._changed.notify_all()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()
