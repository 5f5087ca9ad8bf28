"""Single flight: what several jobs want at the same moment is done by the first of them, for all.

Each job keeps its own deadline and its own cancellation. Whoever does the work may be cancelled, or run out of time or
memory, and that is nobody else's failure: those who waited then do it themselves, each alone, so that nobody waits for
a second one in vain.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

from producer.errors import JobFailed
from worker.concurrency.cancel_scope import CancelScope

T = TypeVar("T")


class _GivenUp(Exception):
    """The work ended without an outcome that is everybody's."""


class SingleFlight(Generic[T]):
    """Thread-safe. A key is held for as long as its work lasts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[Hashable, Future[T]] = {}

    def do(self, key: Hashable, scope: CancelScope, work: Callable[[], T]) -> tuple[T, bool]:
        """What the work gives, and whether it was another's that runs for the same key.

        Args:
            scope: until when another's work is waited for; the own work has to mind it itself.

        Raises:
            TimeoutError: another's work took longer than the scope.
            Cancelled: the scope was cancelled meanwhile.
            JobFailed: another's work failed in a way that trying again would not mend.
        """
        ours: Future[T] = Future()
        with self._lock:
            flight = self._flights.setdefault(key, ours)
        if flight is ours:
            return self._lead(key, flight, work), False
        try:
            return scope.result_of(flight), True
        except _GivenUp:
            failure = None
        except JobFailed as theirs:
            failure = _copy(theirs)
        # Raised outside of the handlers: what happened to another is not the context of what happens to this one.
        if failure is not None:
            raise failure
        return work(), False

    def _lead(self, key: Hashable, flight: Future[T], work: Callable[[], T]) -> T:
        try:
            result = work()
        except BaseException as error:
            self._land(key)
            lasting = isinstance(error, JobFailed) and not error.retryable
            flight.set_exception(_copy(error) if lasting else _GivenUp())
            raise
        self._land(key)
        flight.set_result(result)
        return result

    def _land(self, key: Hashable) -> None:
        with self._lock:
            del self._flights[key]


def _copy(failure: BaseException) -> JobFailed:
    """Without its traceback, whose frames hold another job's affairs."""
    return JobFailed(*failure.args)
