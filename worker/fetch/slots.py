"""How many downloads may run at one place at once, so that nobody can aim this worker at a victim."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from producer.contract import Queue
from worker.concurrency.budget import Budget
from worker.concurrency.cancel_scope import CancelScope
from worker.concurrency.shares import of_places
from worker.fetch.failures import unavailable

_BUSY = "too many downloads from this host run already; try again later."


@dataclass(slots=True)
class _Place:
    budget: Budget
    #: How many hold a slot here, or wait for one.
    users: int = 0


class Slots:
    """At most ``limit`` holders per key; queues share them as they share everything. Thread-safe.

    It remembers only keys that somebody holds or waits for: never more than there are downloads.
    """

    def __init__(self, limit: int) -> None:
        self._limits = of_places(limit)
        self._lock = threading.Lock()
        self._places: dict[Hashable, _Place] = {}

    def users(self, key: Hashable) -> int:
        """How many hold a slot of this key, or wait for one."""
        place = self._places.get(key)
        return place.users if place is not None else 0

    def take(self, key: Hashable, scope: CancelScope, queue: Queue = "default") -> None:
        """Wait for a slot for as long as the scope lasts; whoever has taken one calls `give_back`.

        Raises:
            FetchFailed: ``host_unavailable``, when none came free in time.
            Cancelled: somebody has cancelled the scope.
        """
        with self._lock:
            if (place := self._places.get(key)) is None:
                place = self._places[key] = _Place(Budget(self._limits, _BUSY))
            place.users += 1
        try:
            place.budget.take(1, scope, queue)
        except BaseException as error:
            self._leave(key, place)
            if isinstance(error, TimeoutError):
                raise unavailable(_BUSY) from None
            raise

    def give_back(self, key: Hashable, queue: Queue = "default") -> None:
        """Hand a slot on to whose turn it is."""
        place = self._places[key]
        place.budget.give_back(1, queue)
        self._leave(key, place)

    @contextmanager
    def hold(self, key: Hashable, scope: CancelScope, queue: Queue = "default") -> Iterator[None]:
        """`take` now, `give_back` at the end."""
        self.take(key, scope, queue)
        try:
            yield
        finally:
            self.give_back(key, queue)

    def _leave(self, key: Hashable, place: _Place) -> None:
        with self._lock:
            place.users -= 1
            if not place.users:
                del self._places[key]
