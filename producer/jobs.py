"""Handles for jobs: an id, and the client that can ask about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from producer.answers import Answer, State
from producer.contract import Result
from producer.errors import InvalidJob, ResultTimeout

if TYPE_CHECKING:
    from producer.aio import AsyncClient
    from producer.client import Client


@dataclass(frozen=True, slots=True)
class Job:
    """One job that was sent, by its id. It holds no connection and no subscription: keep any number of them."""

    id: str
    _client: Client = field(repr=False, compare=False)

    def status(self) -> State:
        """``queued``, ``running``, ``succeeded``, ``failed``, ``cancelled``, ``expired`` or ``unknown``.

        ``unknown``: never seen, or the result has outlived its time, or sent by another client than ours and
        not started yet.

        Raises:
            BrokerUnavailable: within 3 seconds.
        """
        return self._client.look_up(self.id).state

    def result(self, timeout: float | None = None) -> Result:
        """Wait for the result; a failed, cancelled or expired job's answer is raised.

        Args:
            timeout: seconds to wait; None waits until there is an answer.

        Raises:
            JobFailed, JobCancelled, JobExpired: the job's own answer.
            JobNotFound: the job is ``unknown``.
            ResultTimeout: no answer within ``timeout``; the job goes on.
            BrokerUnavailable: at once, or when Redis stays away for a minute while waiting.
        """
        return single_result(self.id, self.answer(timeout))

    def answer(self, timeout: float | None = None) -> Answer:
        """Wait as `result` does, and return a failed, cancelled or expired job's answer instead of raising it."""
        return self._client.wait_for(self.id, timeout)

    def cancel(self) -> bool:
        """Cancel the job; returns False when it had an answer already, which stands.

        Raises:
            JobNotFound: the job is ``unknown``.
        """
        return self._client.cancel(self.id)


@dataclass(frozen=True, slots=True)
class AsyncJob:
    """As `Job`, for asyncio."""

    id: str
    _client: AsyncClient = field(repr=False, compare=False)

    async def status(self) -> State:
        """As `Job.status`."""
        return (await self._client.look_up(self.id)).state

    async def result(self, timeout: float | None = None) -> Result:  # noqa: ASYNC109 - the same signature as Job's
        """As `Job.result`."""
        return single_result(self.id, await self.answer(timeout))

    async def answer(self, timeout: float | None = None) -> Answer:  # noqa: ASYNC109
        """As `Job.answer`."""
        return await self._client.wait_for(self.id, timeout)

    async def cancel(self) -> bool:
        """As `Job.cancel`."""
        return await self._client.cancel(self.id)


def single_result(job_id: str, answer: Answer) -> Result:
    """The result of a job of one image; raises what the worker answered."""
    if answer.value is not None and "outcomes" in answer.value:
        raise InvalidJob(f"job {job_id} is a bulk message of several images; read its answer().value instead.")
    return answer.result()


def timed_out(job_id: str, timeout: float | None) -> ResultTimeout:
    """The error for a wait that ended without an answer."""
    return ResultTimeout(f"job {job_id} had no answer within {timeout or 0:g} s; it goes on, ask again later.")
