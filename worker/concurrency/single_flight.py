"""Single flight: when several jobs need the same work at once, the first of them, the leader, does it for all.

Each job keeps its own deadline and cancellation. If the leader fails for a reason that need not apply to the followers
(it was cancelled, or ran out of time or memory), each follower does the work itself, because a second leader could fail
in the same way.
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
    """The leader failed for a reason that need not apply to its followers, so each does the work itself."""


class SingleFlight(Generic[T]):
    """Merges concurrent work with the same key. Thread-safe; a key is held only while its work runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[Hashable, Future[T]] = {}

    def do(self, key: Hashable, scope: CancelScope, work: Callable[[], T]) -> tuple[T, bool]:
        """Return the result of the work, and whether it came from another caller's work with the same key.

        Args:
            scope: limits the wait for another caller's work; `work` itself must observe the scope too.

        Raises:
            TimeoutError: the scope's deadline passed while another caller's work ran.
            Cancelled: the scope was cancelled while another caller's work ran.
            JobFailed: another caller's work failed with an error that is not retryable.
            Exception: what ``work`` raises, if this caller does the work.
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
        # Raise the copy outside the handlers, so that the leader's exception does not become the copy's context.
        if failure is not None:
            raise failure
        return work(), False

    def _lead(self, key: Hashable, flight: Future[T], work: Callable[[], T]) -> T:
        try:
            result = work()
        except BaseException as error:
            self._remove(key)
            lasting = isinstance(error, JobFailed) and not error.retryable
            flight.set_exception(_copy(error) if lasting else _GivenUp())
            raise
        self._remove(key)
        flight.set_result(result)
        return result

    def _remove(self, key: Hashable) -> None:
        with self._lock:
            del self._flights[key]


def _copy(failure: BaseException) -> JobFailed:
    """Return a copy without the traceback, whose frames refer to the leader's data."""
    return JobFailed(*failure.args)
