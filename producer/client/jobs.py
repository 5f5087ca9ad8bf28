"""Handles for jobs: an id, and the client that can ask about it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from producer.contract import Result
from producer.errors import InvalidJob, ResultTimeout
from producer.operations.answers import Answer, State
from producer.operations.exchanges import not_found
from producer.operations.standing import Glance

if TYPE_CHECKING:
    from producer.client.aio import AsyncClient
    from producer.client.blocking import Client


@dataclass(frozen=True, slots=True)
class Job:
    """One job that was sent, by its id. It holds no connection and no subscription: keep any number of them.

    Attributes:
        is_new: whether the submission queued it; False where a job of this id and payload stood already, None for a
            handle that `Client.job` made.
    """

    id: str
    _client: Client = field(repr=False, compare=False)
    is_new: bool | None = field(default=None, compare=False)

    def status(self) -> State:
        """``queued``, ``running``, ``succeeded``, ``failed``, ``cancelled``, ``expired`` or ``unknown``.

        ``unknown``: never seen, or the result has outlived its time, or its message was purged or lost, or sent by
        another client than ours and not taken yet. Its id may be submitted again.

        Raises:
            BrokerUnavailable: within 3 seconds.
        """
        return self._client.look_up(self.id).state

    def result(self, timeout: float | None = None) -> Result:
        """Wait for the result; a failed, cancelled or expired job's answer is raised.

        Args:
            timeout: seconds to wait; None, as infinity, waits until there is an answer, 0 or less does not wait.

        Raises:
            InvalidJob: ``timeout`` is no number of seconds.
            JobFailed, JobCancelled, JobExpired: the job's own answer.
            JobNotFound: the job is ``unknown``, or becomes so while it is waited for (within a minute).
            ResultTimeout: no answer within ``timeout``; the job goes on.
            BrokerUnavailable: at once where the answers' Redis is away, or when Redis stays away for a minute while
                waiting. Once the queues' Redis has said that the job exists, it may be away for longer.
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

    def position(self) -> int | None:
        """How many messages are before this job's in its queue; None when it does not wait there."""
        return self._client.position(self.id)

    def forget(self) -> bool:
        """Free the id of a job that is answered, or lost, for any payload; see `Client.forget`."""
        return self._client.forget(self.id)


@dataclass(frozen=True, slots=True)
class AsyncJob:
    """As `Job`, for asyncio."""

    id: str
    _client: AsyncClient = field(repr=False, compare=False)
    is_new: bool | None = field(default=None, compare=False)

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

    async def position(self) -> int | None:
        """As `Job.position`."""
        return await self._client.position(self.id)

    async def forget(self) -> bool:
        """As `Job.forget`."""
        return await self._client.forget(self.id)


def single_result(job_id: str, answer: Answer) -> Result:
    """The result of a job of one image; raises what the worker answered."""
    if answer.value is not None and "outcomes" in answer.value:
        raise InvalidJob(f"job {job_id} is a bulk message of several images; read its answer().value instead.")
    return answer.result()


def check_wait(timeout: object, name: str = "timeout") -> float | None:
    """The seconds to wait for an answer, None for ever; raises `InvalidJob`. Less than 0 is as 0."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise InvalidJob(f"{name} must be a number of seconds or None, not {type(timeout).__name__}.")
    if timeout != timeout:  # nan, as `math.isnan` says of no integer that is too large for a float
        raise InvalidJob(f"{name} must be a number of seconds or None, not nan.")
    # More than a lock can count: centuries, or weeks on Windows.
    return None if timeout > threading.TIMEOUT_MAX else max(0.0, float(timeout))


def timed_out(job_id: str, timeout: float | None) -> ResultTimeout:
    """The error for a wait that ended without an answer."""
    return ResultTimeout(f"job {job_id} had no answer within {timeout or 0:g} s; it goes on, ask again later.")


def answer_in(seen: Glance, job_id: str, timeout: float | None) -> Answer | None:
    """The job's terminal answer; None where it is to be waited for. Raises what makes that useless."""
    if (answer := seen.answers.get(job_id)) is not None:
        return existing(answer, job_id) if answer.is_terminal or answer.state == "unknown" else None
    # Only the broker cannot be asked: answers come all the same.
    if seen.fault is not None and (timeout == 0 or not seen.fault.may_pass):
        raise seen.fault
    return None


def existing(answer: Answer, job_id: str) -> Answer:
    """The answer; raises `JobNotFound` where there is no job."""
    if answer.state == "unknown":
        raise not_found(job_id)
    return answer


def answer_within(waiting: Future[Answer], job_id: str, timeout: float | None, *, until_s: float | None) -> Answer:
    """Wait in this thread, until `time.monotonic` says so; raises `ResultTimeout`."""
    try:
        return waiting.result(None if until_s is None else max(0.0, until_s - time.monotonic()))
    except TimeoutError:
        if waiting.done() and not waiting.cancelled():
            return waiting.result()
        raise timed_out(job_id, timeout) from None
    finally:
        # After an answer this does nothing; after a timeout or Ctrl-C it ends the subscription.
        waiting.cancel()
