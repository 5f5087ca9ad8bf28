"""A `CancelScope` that reports when its job begins to wait for another's work."""

import threading
import time
from concurrent.futures import Future
from typing import TypeVar

from worker.concurrency.cancel_scope import CancelScope

T = TypeVar("T")
LONG_S = 600.0


class WatchedScope(CancelScope):
    """A scope whose deadline is later than the end of any test, unless the test gives another.

    Attributes:
        waits: set once the job begins to wait for a future.
    """

    def __init__(self, deadline_s: float | None = None) -> None:
        super().__init__(time.monotonic() + LONG_S if deadline_s is None else deadline_s)
        self.waits = threading.Event()

    def within(self, timeout_s: float) -> CancelScope:
        part = WatchedScope(super().within(timeout_s).deadline_s)
        part._cancellation, part.waits = self._cancellation, self.waits
        return part

    def result_of(self, future: Future[T]) -> T:
        self.waits.set()
        return super().result_of(future)
