"""How many downloads may run at one place at once, so that nobody can aim this worker at a victim."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Hashable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from worker.cancel_scope import CancelScope
from worker.fetch.failures import unavailable


class Slots:
    """At most ``limit`` holders per key, first come first served. Thread-safe.

    It remembers only keys that somebody holds or waits for: never more than there are downloads.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._held: dict[Hashable, int] = {}
        self._waiting: dict[Hashable, deque[Future[None]]] = {}

    def take(self, key: Hashable, scope: CancelScope) -> None:
        """Wait for a slot for as long as the scope lasts; whoever has taken one calls `give_back`.

        Raises:
            FetchFailed: ``host_unavailable``, when none came free in time.
            Cancelled: somebody has cancelled the scope.
        """
        with self._lock:
            held = self._held.get(key, 0)
            if held < self._limit:  # then nobody waits: a slot that comes free goes straight to who waits longest
                self._held[key] = held + 1
                return
            turn: Future[None] = Future()
            self._waiting.setdefault(key, deque()).append(turn)
        try:
            scope.result_of(turn)
        except BaseException as error:
            self._leave(key, turn)
            if isinstance(error, TimeoutError):
                raise unavailable("too many downloads from this host run already; try again later.") from None
            raise

    def give_back(self, key: Hashable) -> None:
        """Hand a slot on to whoever has waited longest for it."""
        with self._lock:
            waiting = self._waiting.get(key)
            if waiting:
                waiting.popleft().set_result(None)
                if not waiting:
                    del self._waiting[key]
            elif self._held[key] > 1:
                self._held[key] -= 1
            else:
                del self._held[key]

    @contextmanager
    def hold(self, key: Hashable, scope: CancelScope) -> Iterator[None]:
        """`take` now, `give_back` at the end."""
        self.take(key, scope)
        try:
            yield
        finally:
            self.give_back(key)

    def _leave(self, key: Hashable, turn: Future[None]) -> None:
        with self._lock:
            if not turn.done():
                self._waiting[key].remove(turn)
                if not self._waiting[key]:
                    del self._waiting[key]
                return
        self.give_back(key)  # it came just as nobody wanted it any more
