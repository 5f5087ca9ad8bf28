"""The calls that wait in an `AnswerListener`: each waits for a job's terminal answer, or watches all its states."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final, Protocol

from producer.errors import BrokerUnavailable
from producer.operations.answers import Answer, State

#: A job's states only advance: a job whose worker died is queued again, but has begun.
_ORDER: Final[dict[State, int]] = {"queued": 1, "running": 2}
_LAST: Final = 3


def ordinal(state: State) -> int:
    """Return 1 for ``queued``, 2 for ``running``, and 3 for a state that does not change any more."""
    return _ORDER.get(state, _LAST)


class Waiter(Protocol):
    """Receives what is heard or read of one job, in the event loop of its listener."""

    def offer(self, answer: Answer) -> None:
        """Receive the job's present answer; the same one may come again."""
        ...

    def fail(self, error: Exception) -> None:
        """Receive the error that ends the wait."""
        ...


class LastAnswer:
    """Waits for the answer after which nothing changes."""

    def __init__(self) -> None:
        self._arrival: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def offer(self, answer: Answer) -> None:
        """Keep the answer if it is the last."""
        if ordinal(answer.state) == _LAST and not self._arrival.done():
            self._arrival.set_result(answer)

    def fail(self, error: Exception) -> None:
        """End the wait."""
        if not self._arrival.done():
            self._arrival.set_exception(error)

    async def get(self) -> Answer:
        """Return the answer, or raise the error."""
        return await self._arrival


class LatestAnswer:
    """Keeps the newest state that has not been read, so that a slow reader costs no memory."""

    def __init__(self) -> None:
        self._unread: Answer | Exception = Answer("queued")
        self._reached = 0
        self._arrived = asyncio.Event()

    @property
    def is_over(self) -> bool:
        """Whether the job's last state was read."""
        return self._reached == _LAST and not self._arrived.is_set()

    def offer(self, answer: Answer) -> None:
        """Keep the answer if its state is further than any before it."""
        if ordinal(answer.state) > self._reached:
            self._reached = ordinal(answer.state)
            self._keep(answer)

    def fail(self, error: Exception) -> None:
        """End the watch, unless the job has reached its last state."""
        if self._reached < _LAST:
            self._keep(error)

    async def get(self) -> Answer:
        """Return the next state, or raise the error."""
        await self._arrived.wait()
        self._arrived.clear()
        if isinstance(self._unread, Exception):
            raise self._unread
        return self._unread

    def _keep(self, unread: Answer | Exception) -> None:
        self._unread = unread
        self._arrived.set()


class Waiters:
    """The waiters of each job."""

    def __init__(self) -> None:
        self._of_jobs: dict[str, set[Waiter]] = {}

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._of_jobs

    def __iter__(self) -> Iterator[str]:
        return iter(self._of_jobs)

    def __len__(self) -> int:
        return len(self._of_jobs)

    def add(self, job_id: str, waiter: Waiter) -> None:
        """Add a waiter of a job."""
        self._of_jobs.setdefault(job_id, set()).add(waiter)

    def remove(self, job_id: str, waiter: Waiter) -> None:
        """Remove a waiter, and with its last one the job."""
        waiters = self._of_jobs[job_id]
        waiters.remove(waiter)
        if not waiters:
            del self._of_jobs[job_id]

    def offer(self, job_id: str, answer: Answer) -> None:
        """Give all waiters of a job its present answer."""
        for waiter in self._of_jobs.get(job_id, ()):
            waiter.offer(answer)

    def fail(self, job_id: str, error: Exception) -> None:
        """End the waits for a job with an error."""
        for waiter in self._of_jobs.get(job_id, ()):
            waiter.fail(error)

    def fail_all(self, sentence: str) -> None:
        """End all waits with `BrokerUnavailable`."""
        for job_id in self._of_jobs:
            self.fail(job_id, BrokerUnavailable(sentence))
