"""Bounds the concurrent downloads per key, so that an attacker cannot use the worker to flood a victim."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from producer.contract.names import Queue
from worker.concurrency.budget import Budget
from worker.concurrency.cancel_scope import CancelScope
from worker.concurrency.shares import of_places
from worker.fetch.failures import unavailable

_BUSY = "too many downloads from this host are already running; try again later."


@dataclass(slots=True)
class _Place:
    budget: Budget
    #: Downloads that hold a slot of this key, or wait for one.
    users: int = 0


class Slots:
    """At most ``limit`` holders per key, shared by the queues as in `worker.concurrency.shares`. Thread-safe.

    Only keys in use are stored, never more than there are downloads.
    """

    def __init__(self, limit: int) -> None:
        self._limits = of_places(limit)
        self._lock = threading.Lock()
        self._places: dict[Hashable, _Place] = {}

    def users(self, key: Hashable) -> int:
        """Return how many downloads hold a slot of this key, or wait for one."""
        place = self._places.get(key)
        return place.users if place is not None else 0

    def take(self, key: Hashable, scope: CancelScope, queue: Queue = "default") -> None:
        """Wait for a slot while the scope lasts; the caller must `give_back` the slot.

        Raises:
            FetchFailed: ``host_unavailable``, when no slot came free in time.
            Cancelled: the scope was cancelled.
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
        """Release a slot to the next waiting download."""
        place = self._places[key]
        place.budget.give_back(1, queue)
        self._leave(key, place)

    @contextmanager
    def hold(self, key: Hashable, scope: CancelScope, queue: Queue = "default") -> Iterator[None]:
        """Hold a slot within this context."""
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
