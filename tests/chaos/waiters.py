"""Waiters, one for each job of our client, from acceptance until the answer; if a job is lost, its waiter resends it.

A waiter must get ``unknown`` for a destroyed job and never for another one. The jobs of a plain client have no waiters;
if they are destroyed, a plain client sends them again.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Self

from producer import AsyncClient, BrokerUnavailable, JobNotFound
from tests.chaos.jobs import job, number_of
from tests.chaos.producing import LATER, RETRY_DELAY_S, plain_celery, submit_until_accepted

logger = logging.getLogger(__name__)

CALL_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Moment:
    """When something happened to a job, by `time.monotonic`."""

    job_id: str
    at_s: float


class Waiters:
    """Runs all waiters on one event loop in a thread; a context manager. One other thread calls its methods.

    Args:
        seed: The seed of the run's jobs.
        pictures: See `tests.chaos.producing.sender`.

    Attributes:
        waiting: the ids of the jobs whose waiters have no answer yet.
        told: the jobs that a waiter was told are unknown; `Accounts` checks each and then calls `send_again`.
        sent_again: the jobs that were submitted again, and when each call began.
        failures: unexpected errors of waiters.
    """

    def __init__(self, broker_url: str, result_backend: str, *, seed: int, pictures: tuple[str, str]) -> None:
        self.waiting: set[str] = set()
        self.told: deque[Moment] = deque()
        self.sent_again: deque[Moment] = deque()
        self.failures: list[str] = []
        self._urls = (broker_url, result_backend)
        self._seed = seed
        self._pictures = pictures
        self._plain = plain_celery(pictures, broker_url)
        self._go_on: dict[str, asyncio.Event] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="waiters", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()

    def follow(self, job_ids: Iterable[str]) -> None:
        """Start waiters for these jobs of our client, except for jobs that have one."""
        for job_id in job_ids:
            if job_id not in self.waiting:
                self.waiting.add(job_id)
                self._loop.call_soon_threadsafe(self._begin, job_id)

    def send_again(self, job_id: str) -> None:
        """Submit a job whose waiter was told that it is unknown."""
        self._loop.call_soon_threadsafe(self._go_on.pop(job_id).set)

    def send_plainly(self, job_ids: Iterable[str]) -> None:
        """Send jobs of a plain client again, with a plain client."""
        for job_id in job_ids:
            self._loop.call_soon_threadsafe(self._spawn, self._send_plainly(job_id))

    def _begin(self, job_id: str) -> None:
        self._spawn(self._follow(job_id))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self, job_id: str) -> None:
        while True:
            try:
                await self._client.wait_for(job_id, None)
            except JobNotFound:
                self._go_on[job_id] = asyncio.Event()
                self.told.append(Moment(job_id, time.monotonic()))
                await self._go_on[job_id].wait()
                if (moment := await self._submit(job_id)) is not None:
                    self.sent_again.append(moment)
            except BrokerUnavailable:
                await asyncio.sleep(RETRY_DELAY_S)
            except Exception as error:  # reported at the end; the waiter goes on
                self.failures.append(f"{job_id}: {type(error).__name__}: {error}")
                await asyncio.sleep(RETRY_DELAY_S)
            else:
                self.waiting.discard(job_id)
                return

    async def _submit(self, job_id: str) -> Moment | None:
        """Submit a job again; return None if no message was queued.

        A call whose reply was lost may have queued a message that a purge then destroyed. While later messages wait,
        the next call cannot tell (see docs/delivery.md), so the job still counts as destroyed, and its waiter must
        get ``unknown`` again.
        """
        asked = job(self._seed, number_of(job_id))
        while True:
            moment = Moment(job_id, time.monotonic())
            try:
                url = self._pictures[0] + asked.picture
                sent = await self._client.submit(url, asked.labels, job_id=job_id, queue=asked.queue)
            except LATER:
                await asyncio.sleep(RETRY_DELAY_S)
            else:
                return moment if sent.is_new else None

    async def _send_plainly(self, job_id: str) -> None:
        asked = job(self._seed, number_of(job_id))
        async with self._one_at_a_time:
            # Because of retries, the successful call may begin later; that only makes the check more lenient.
            moment = Moment(job_id, time.monotonic())
            await asyncio.to_thread(submit_until_accepted, self._plain, asked, logger.info)
        self.sent_again.append(moment)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(CALL_TIMEOUT_S)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(CALL_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open(self) -> None:
        self._client = AsyncClient(*self._urls)
        self._one_at_a_time = asyncio.Semaphore(1)

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.close()
