"""Until when a job is worked on: its deadline, or the moment somebody cancels it, whichever comes first.

Everything that waits on a job's behalf takes its scope, as it would take a timeout. No wait is polled: cancelling
wakes each of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, wait
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


class Cancelled(Exception):
    """The job's answer stands already: nobody waits for what is being done."""


class CancelScope:
    """A deadline that can be cancelled. Thread-safe.

    Attributes:
        deadline_s: a moment of ``time.monotonic()``.
    """

    __slots__ = ("_cancellation", "deadline_s")

    def __init__(self, deadline_s: float) -> None:
        self.deadline_s = deadline_s
        self._cancellation: Future[None] = Future()

    def within(self, timeout_s: float) -> CancelScope:
        """A part of this scope: cancelled with it, and over after ``timeout_s`` seconds if that is sooner."""
        part = CancelScope(min(self.deadline_s, time.monotonic() + timeout_s))
        part._cancellation = self._cancellation
        return part

    @property
    def left_s(self) -> float:
        """Seconds that are left; 0 when it is over."""
        return 0.0 if self._cancellation.done() else max(0.0, self.deadline_s - time.monotonic())

    @property
    def is_over(self) -> bool:
        """Whether the deadline has passed, or somebody has cancelled."""
        return self.left_s == 0.0

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
        if not future.done():
            awaited: tuple[Future[Any], ...] = (future, self._cancellation)
            wait(awaited, max(0.0, self.deadline_s - time.monotonic()), FIRST_COMPLETED)
            self.check()
        return future.result(0)

    def sleep(self, duration_s: float) -> None:
        """Sleep; less when it is over before."""
        wait((self._cancellation,), min(duration_s, self.left_s))
