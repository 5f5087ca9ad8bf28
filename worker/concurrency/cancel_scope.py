"""A job's scope, which ends at the job's deadline or cancellation, whichever is first.

Every function that waits on behalf of a job has the scope as a parameter instead of a timeout. A cancellation wakes all
waiting threads at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from producer.contract.names import Queue

T = TypeVar("T")

#: While a clock is paused, its deadline moves, so a thread that has waited until the deadline reads it again and waits
#: further, for at least this long.
PAUSED_INTERVAL_S: Final = 0.1


class Cancelled(Exception):
    """Raised when the job's scope was cancelled, so that all work for the job stops."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A job or image that may have killed worker processes; its stages that could kill this process run alone.

    Attributes:
        mark: the text that the worker records in Redis while such a stage runs alone; it is the job's id and, if the
            job is a bulk message, the image's index.
        queue: the queue of its message; suspects take turns by the weights of their queues.
        deaths: the number of workers that died while they held it; a suspect with fewer deaths has more turns.
    """

    mark: str
    queue: Queue = "default"
    deaths: int = 2


class CancelScope:
    """A deadline that can be cancelled. Thread-safe.

    Attributes:
        suspect: the suspect that the work belongs to; None for an ordinary job.
    """

    __slots__ = ("_cancellation", "_clock", "suspect")

    def __init__(self, deadline_s: float) -> None:
        self.suspect: Suspect | None = None
        self._clock = _Clock(deadline_s)
        self._cancellation: Future[None] = Future()

    @property
    def deadline_s(self) -> float:
        """The deadline in seconds of ``time.monotonic()``; it moves while the clock is paused."""
        return self._clock.deadline_s

    @deadline_s.setter
    def deadline_s(self, deadline_s: float) -> None:
        self._clock = _Clock(deadline_s)

    def within(self, timeout_s: float) -> CancelScope:
        """Return a scope that is cancelled with this one and ends at its deadline, or after ``timeout_s`` if sooner."""
        part = CancelScope(min(self.deadline_s, time.monotonic() + timeout_s))
        part._cancellation, part.suspect = self._cancellation, self.suspect
        return part

    def of(self, suspect: Suspect) -> CancelScope:
        """Return a scope for a suspect's work, which shares this scope's clock and cancellation."""
        same = CancelScope(0)
        same._clock, same._cancellation, same.suspect = self._clock, self._cancellation, suspect
        return same

    def pause_clock(self) -> Callable[[], None]:
        """Pause the clock until the returned function is called; further calls of that function have no effect."""
        self._clock.pause()
        is_paused = threading.Lock()

        def resume() -> None:
            if is_paused.acquire(blocking=False):
                self._clock.resume()

        return resume

    @property
    def left_s(self) -> float:
        """The seconds until the deadline; 0 once the scope has ended."""
        return 0.0 if self._cancellation.done() else max(0.0, self.deadline_s - time.monotonic())

    @property
    def is_over(self) -> bool:
        """Whether the deadline has passed or the scope was cancelled."""
        return self.left_s == 0.0

    @property
    def is_cancelled(self) -> bool:
        """Whether the scope was cancelled."""
        return self._cancellation.done()

    def cancel(self) -> None:
        """Cancel the scope and wake all waiting threads; a second call has no effect."""
        with suppress(InvalidStateError):
            self._cancellation.set_result(None)

    def check(self) -> None:
        """Check that the scope was not cancelled, but not whether its deadline has passed.

        Raises:
            Cancelled: the scope was cancelled.
        """
        if self._cancellation.done():
            raise Cancelled

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Call `callback` once when the scope is cancelled, in the cancelling thread; now, if it was cancelled before.

        Callbacks cannot be removed, so the scope may call one after the wait for which it was registered.
        """
        self._cancellation.add_done_callback(lambda _: callback())

    def result_of(self, future: Future[T]) -> T:
        """Wait for a future and return its result, or raise its exception.

        Raises:
            TimeoutError: the deadline passed first.
            Cancelled: the scope was cancelled first.
        """
        awaited: tuple[Future[Any], ...] = (future, self._cancellation)
        while not future.done():
            clock = self._clock
            left_s = clock.deadline_s - time.monotonic()
            wait(awaited, max(0.0, left_s, PAUSED_INTERVAL_S if clock.is_paused else 0.0), FIRST_COMPLETED)
            self.check()
            if left_s <= 0 and not clock.is_paused:
                break
        return future.result(0)

    def sleep(self, duration_s: float) -> None:
        """Sleep for `duration_s` seconds, or until the scope ends."""
        wait((self._cancellation,), min(duration_s, self.left_s))


class _Clock:
    """A deadline that moves while the clock is paused; each `pause` needs a `resume` of its own."""

    __slots__ = ("_deadline_s", "_lock", "_paused_at_s", "_pauses")

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._lock = threading.Lock()
        self._pauses = 0
        self._paused_at_s = 0.0

    @property
    def is_paused(self) -> bool:
        return self._pauses > 0

    @property
    def deadline_s(self) -> float:
        with self._lock:
            return self._deadline_s + (time.monotonic() - self._paused_at_s if self._pauses else 0.0)

    def pause(self) -> None:
        with self._lock:
            if not self._pauses:
                self._paused_at_s = time.monotonic()
            self._pauses += 1

    def resume(self) -> None:
        with self._lock:
            self._pauses -= 1
            if not self._pauses:
                self._deadline_s += time.monotonic() - self._paused_at_s
