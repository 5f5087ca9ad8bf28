"""Watch any number of jobs for one stream; of each only the newest state that was not sent is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager

from producer.client.ending_tasks import end
from producer.client.waiting import AnswerListener
from producer.errors import BrokerUnavailable


class JobWatch:
    """The jobs of one stream.

    Attributes:
        changed: the jobs whose state has changed since the stream last sent it.
        failed: whether Redis was down for so long that a job is not watched any more.
    """

    def __init__(self) -> None:
        self.changed: set[str] = set()
        self.failed = False
        self._news = asyncio.Event()

    async def wait(self, timeout_s: float) -> None:
        """Return when a job has changed or the watch failed, or after the time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            pass
        self._news.clear()

    def wake(self) -> None:
        """End the present `wait`."""
        self._news.set()

    async def follow(self, listener: AnswerListener, job_id: str) -> None:
        """Take note of each state of a job, until its last."""
        try:
            async with aclosing(listener.watch(job_id)) as answers:
                async for _ in answers:
                    self.changed.add(job_id)
                    self._news.set()
        except BrokerUnavailable:
            self.failed = True
            self._news.set()


@asynccontextmanager
async def watching(listener: AnswerListener, job_ids: Iterable[str]) -> AsyncIterator[JobWatch]:
    """Watch jobs for the time of the block."""
    watch = JobWatch()
    tasks = [asyncio.create_task(watch.follow(listener, job_id)) for job_id in job_ids]
    try:
        yield watch
    finally:
        await end(tasks)
