"""Check shortly before a wait times out whether a worker takes jobs from the job's queue, so that the error can tell.

This check, a *look*, runs during the wait and never prolongs it. During a short wait the client makes no such check,
because a program that polls would repeat it all the time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, Self

from producer.errors import BrokerUnavailable
from producer.operations.workers import UNKNOWN, Serving, serving, waits_in

if TYPE_CHECKING:
    from producer.broker.connections import AsyncLink

#: The client looks for a worker only during waits of at least this length.
SHORTEST_WAIT_S: Final = 1.0
#: The look begins this long before the end of the wait.
LEAD_S: Final = 0.5
#: A look serves all callers that ask while it runs, or within this time of its beginning.
_FRESH_S: Final = 1.0


class WorkerLook:
    """Looks for a worker in one event loop; callers at about the same time share one reading of the leases."""

    def __init__(self, link: AsyncLink, queue_prefix: str) -> None:
        self._link = link
        self._queue_prefix = queue_prefix
        self._task: asyncio.Task[Serving] | None = None
        self._began_s = 0.0

    async def finds_none(self, job_id: str) -> bool:
        """Return True only if certainly no worker takes jobs from this job's queue; if the broker fails, False."""
        loop = asyncio.get_running_loop()
        if self._task is None or (self._task.done() and loop.time() - self._began_s > _FRESH_S):
            self._began_s = loop.time()
            self._task = loop.create_task(self._read_leases())
        found = await asyncio.shield(self._task)
        if not found.has_workers or not found.unserved:
            return not found.has_workers
        try:
            return await self._link.run(waits_in(self._queue_prefix, job_id)) in found.unserved
        except BrokerUnavailable:
            return False

    async def _read_leases(self) -> Serving:
        try:
            return await self._link.run(serving(self._queue_prefix))
        except BrokerUnavailable:
            return UNKNOWN


class LookAhead:
    """Begins a look during a ``with`` block in which a coroutine waits, if the block lasts long enough."""

    def __init__(
        self, finds_none: Callable[[], Coroutine[Any, Any, bool]], timeout: float | None, until_s: float | None
    ) -> None:
        self._finds_none = finds_none
        self._at_s = look_at_s(timeout, until_s)
        self._timer: asyncio.TimerHandle | None = None
        self._look: asyncio.Task[bool] | None = None

    def found_none(self) -> bool:
        """Return whether the look has ended and found no worker."""
        return found_none(self._look)

    def __enter__(self) -> Self:
        if self._at_s is not None:
            self._timer = asyncio.get_running_loop().call_at(self._at_s, self._begin)
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._look is not None:
            self._look.cancel()

    def _begin(self) -> None:
        self._look = asyncio.get_running_loop().create_task(self._finds_none())


def look_at_s(timeout: float | None, until_s: float | None) -> float | None:
    """Return when to look for a worker, on the clock of the wait's end ``until_s``; None if the wait needs no look."""
    if timeout is None or until_s is None or timeout < SHORTEST_WAIT_S:
        return None
    return until_s - LEAD_S


def found_none(look: asyncio.Future[bool] | Future[bool] | None) -> bool:
    """Return whether the look has ended and found no worker; False if there was no look."""
    return look is not None and look.done() and not look.cancelled() and look.exception() is None and look.result()
