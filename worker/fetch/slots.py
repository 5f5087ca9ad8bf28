"""Limits the concurrent downloads per key, so that an attacker cannot use the worker to flood a victim."""

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
class _Slots:
    budget: Budget
    #: The number of downloads that hold a slot of this key or wait for one.
    users: int = 0


class Slots:
    """Grants up to ``limit`` slots per key, shared among the queues as in `worker.concurrency.shares`. Thread-safe.

    An entry exists only while a download uses its key, so the memory is bounded.
    """

    def __init__(self, limit: int) -> None:
        self._limits = of_places(limit)
        self._lock = threading.Lock()
        self._slots: dict[Hashable, _Slots] = {}

    def users(self, key: Hashable) -> int:
        """Return how many downloads hold a slot of this key or wait for one."""
        slots = self._slots.get(key)
        return slots.users if slots is not None else 0

    def take(self, key: Hashable, scope: CancelScope, queue: Queue = "default") -> None:
        """Wait for a slot while the scope lasts; the caller must return the slot with `give_back`.

        Raises:
            FetchFailed: ``host_unavailable``: no slot became free in time.
            Cancelled: the scope was cancelled.
        """
        with self._lock:
            if (slots := self._slots.get(key)) is None:
                slots = self._slots[key] = _Slots(Budget(self._limits, _BUSY))
            slots.users += 1
        try:
            slots.budget.take(1, scope, queue)
        except BaseException as error:
            self._leave(key, slots)
            if isinstance(error, TimeoutError):
                raise unavailable(_BUSY) from None
            raise

    def give_back(self, key: Hashable, queue: Queue = "default") -> None:
        """Give a slot back, so that the next waiting download can take it."""
        slots = self._slots[key]
        slots.budget.give_back(1, queue)
        self._leave(key, slots)

    @contextmanager
    def hold(self, key: Hashable, scope: CancelScope, queue: Queue = "default") -> Iterator[None]:
        """Hold a slot within this context."""
        self.take(key, scope, queue)
        try:
            yield
        finally:
            self.give_back(key, queue)

    def _leave(self, key: Hashable, slots: _Slots) -> None:
        with self._lock:
            slots.users -= 1
            if not slots.users:
                del self._slots[key]
