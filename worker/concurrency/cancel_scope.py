"""Until when a job is worked on: its deadline, or the moment somebody cancels it, whichever comes first.

Everything that waits on a job's behalf takes its scope, as it would take a timeout. No wait is polled: cancelling
wakes each of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from producer.contract import Queue

T = TypeVar("T")

#: While a clock stands, its deadline moves; a wait looks again this late at most after the clock goes on.
LOOK_AGAIN_S: Final = 0.1


class Cancelled(Exception):
    """The job's answer stands already: nobody waits for what is being done."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """What may have ended worker processes: where its work could end this one, it runs alone.

    Attributes:
        mark: what the worker says that it runs meanwhile: the job's id; for one image of many, its number too.
        queue: where its message waited; suspects have their queues' shares of the turns.
    """

    mark: str
    queue: Queue = "default"


class CancelScope:
    """A deadline that can be cancelled. Thread-safe.

    Attributes:
        suspect: what is worked on, if it is one.
    """

    __slots__ = ("_cancellation", "_clock", "suspect")

    def __init__(self, deadline_s: float) -> None:
        self.suspect: Suspect | None = None
        self._clock = _Clock(deadline_s)
        self._cancellation: Future[None] = Future()

    @property
    def deadline_s(self) -> float:
        """A moment of ``time.monotonic()``; it moves while the clock is stopped."""
        return self._clock.deadline_s

    @deadline_s.setter
    def deadline_s(self, deadline_s: float) -> None:
        self._clock = _Clock(deadline_s)

    def within(self, timeout_s: float) -> CancelScope:
        """A part of this scope: cancelled with it, and over after ``timeout_s`` seconds if that is sooner."""
        part = CancelScope(min(self.deadline_s, time.monotonic() + timeout_s))
        part._cancellation, part.suspect = self._cancellation, self.suspect
        return part

    def of(self, suspect: Suspect) -> CancelScope:
        """This scope, its clock included, for the work of a suspect."""
        same = CancelScope(0)
        same._clock, same._cancellation, same.suspect = self._clock, self._cancellation, suspect
        return same

    def pause_clock(self) -> Callable[[], None]:
        """Have the deadline wait until the function that this returns is called; a second call changes nothing."""
        self._clock.pause()
        is_paused = threading.Lock()

        def resume() -> None:
            if is_paused.acquire(blocking=False):
                self._clock.resume()

        return resume

    @property
    def left_s(self) -> float:
        """Seconds that are left; 0 when it is over."""
        return 0.0 if self._cancellation.done() else max(0.0, self.deadline_s - time.monotonic())

    @property
    def is_over(self) -> bool:
        """Whether the deadline has passed, or somebody has cancelled."""
        return self.left_s == 0.0

    @property
    def is_cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._cancellation.done()

    def cancel(self) -> None:
        """Wake whoever waits; a second time changes nothing."""
        with suppress(InvalidStateError):
            self._cancellation.set_result(None)

    def check(self) -> None:
        """Go on, unless cancelled.

        Raises:
            Cancelled: it was.
        """
        if self._cancellation.done():
            raise Cancelled

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Call back once when cancelled, from another thread; at once if it was already.

        The callback is kept for as long as the scope, so it may come when what it was meant to wake is long over.
        """
        self._cancellation.add_done_callback(lambda _: callback())

    def result_of(self, future: Future[T]) -> T:
        """What the future gives or raises.

        Raises:
            TimeoutError: the deadline came first.
            Cancelled: the cancellation came first.
        """
        awaited: tuple[Future[Any], ...] = (future, self._cancellation)
        while not future.done():
            clock = self._clock
            left_s = clock.deadline_s - time.monotonic()
            wait(awaited, max(0.0, left_s, LOOK_AGAIN_S if clock.is_paused else 0.0), FIRST_COMPLETED)
            self.check()
            if left_s <= 0 and not clock.is_paused:
                break
        return future.result(0)

    def sleep(self, duration_s: float) -> None:
        """Sleep; less when it is over before."""
        wait((self._cancellation,), min(duration_s, self.left_s))


class _Clock:
    """A deadline that moves while it is stopped."""

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
