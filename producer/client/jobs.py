"""Job handles, which hold a job's id and the client that looks it up."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Protocol

from producer.client.worker_look import found_none, look_at_s
from producer.contract.result import Result
from producer.errors import InvalidJob, ResultTimeout
from producer.operations.answers import Answer, State
from producer.operations.exchanges import not_found
from producer.operations.standing import KnownAnswers


class _Client(Protocol):
    """The methods of its client that a `Job` calls."""

    def look_up(self, job_id: str) -> Answer: ...
    def wait_for(self, job_id: str, timeout: float | None) -> Answer: ...
    def cancel(self, job_id: str) -> bool: ...
    def position(self, job_id: str) -> int | None: ...
    def forget(self, job_id: str) -> bool: ...


class _AsyncClient(Protocol):
    """The methods of its client that an `AsyncJob` calls."""

    def look_up(self, job_id: str) -> Awaitable[Answer]: ...
    def wait_for(self, job_id: str, timeout: float | None) -> Awaitable[Answer]: ...
    def cancel(self, job_id: str) -> Awaitable[bool]: ...
    def position(self, job_id: str) -> Awaitable[int | None]: ...
    def forget(self, job_id: str) -> Awaitable[bool]: ...


@dataclass(frozen=True, slots=True)
class Job:
    """A handle for one job, by its id. It holds no connection and no subscription, so a program may keep any number.

    Attributes:
        is_new: whether the submission queued the job; False if a job of this id and payload existed already, None for
            a handle from `Client.job`.
    """

    id: str
    _client: _Client = field(repr=False, compare=False)
    is_new: bool | None = field(default=None, compare=False)

    def status(self) -> State:
        """Return `queued`, `running`, `succeeded`, `failed`, `cancelled`, `expired` or `unknown`.

        ``unknown`` means that the id was never used, that the result has expired, that the message was purged or lost,
        or that a client other than ours sent it and no worker has taken it yet. The id may be submitted again. A job
        that no worker has begun is ``expired`` at most 6 s after its ``expires_in``, even while no worker runs.

        Raises:
            BrokerUnavailable: Redis cannot be reached; the method raises this within 3 seconds.
        """
        return self._client.look_up(self.id).state

    def result(self, timeout: float | None = None) -> Result:
        """Wait for the result; raises the error of a failed, cancelled or expired job.

        Args:
            timeout: seconds to wait; None or infinity waits until there is an answer, 0 or less does not wait.

        Raises:
            InvalidJob: ``timeout`` is not a number of seconds.
            JobFailed, JobCancelled, JobExpired: the job's answer is this error.
            JobNotFound: the job is ``unknown``, or became so during the wait; the client detects that within a minute.
            ResultTimeout: no answer arrived within ``timeout``; the job continues.
            BrokerUnavailable: the result backend was down at the start, or Redis stayed down for a minute during the
                wait. Once the broker has confirmed that the job exists, the broker may be down for longer.
        """
        return single_result(self.id, self.answer(timeout))

    def answer(self, timeout: float | None = None) -> Answer:
        """Wait as `result` does, but return the answer even of a failed, cancelled or expired job."""
        return self._client.wait_for(self.id, timeout)

    def cancel(self) -> bool:
        """Cancel the job; returns False if it already had an answer, which then remains.

        Raises:
            JobNotFound: the job is ``unknown``.
        """
        return self._client.cancel(self.id)

    def position(self) -> int | None:
        """Return how many messages are ahead of this job in its queue, or None if it is not waiting."""
        return self._client.position(self.id)

    def forget(self) -> bool:
        """Free the id of this job, if the job is answered or lost, for any payload; see `Client.forget`."""
        return self._client.forget(self.id)


@dataclass(frozen=True, slots=True)
class AsyncJob:
    """The asyncio `Job`."""

    id: str
    _client: _AsyncClient = field(repr=False, compare=False)
    is_new: bool | None = field(default=None, compare=False)

    async def status(self) -> State:
        """Do the same as `Job.status`."""
        return (await self._client.look_up(self.id)).state

    async def result(self, timeout: float | None = None) -> Result:  # noqa: ASYNC109 - the same signature as Job's
        """Do the same as `Job.result`."""
        return single_result(self.id, await self.answer(timeout))

    async def answer(self, timeout: float | None = None) -> Answer:  # noqa: ASYNC109 - as above
        """Do the same as `Job.answer`."""
        return await self._client.wait_for(self.id, timeout)

    async def cancel(self) -> bool:
        """Do the same as `Job.cancel`."""
        return await self._client.cancel(self.id)

    async def position(self) -> int | None:
        """Do the same as `Job.position`."""
        return await self._client.position(self.id)

    async def forget(self) -> bool:
        """Do the same as `Job.forget`."""
        return await self._client.forget(self.id)


def single_result(job_id: str, answer: Answer) -> Result:
    """Return the result of a job of one image; raises the error of a job without a result."""
    if answer.value is not None and "outcomes" in answer.value:
        raise InvalidJob(f"job {job_id} is a bulk message of several images; use answer().value instead.")
    return answer.result()


def check_wait(timeout: object) -> float | None:
    """Return the seconds to wait, or None to wait indefinitely; negative values become 0. Raises `InvalidJob`."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise InvalidJob(f"timeout must be a number of seconds or None, not {type(timeout).__name__}.")
    if timeout != timeout:  # nan; `math.isnan` would fail for an integer too large for a float
        raise InvalidJob("timeout must be a number of seconds or None, not nan.")
    # A lock cannot wait longer than TIMEOUT_MAX (centuries, or weeks on Windows), so wait indefinitely instead.
    return None if timeout > threading.TIMEOUT_MAX else max(0.0, float(timeout))


def timed_out(job_id: str, timeout: float | None, *, no_worker: bool) -> ResultTimeout:
    """Return the error for a wait that ended without an answer."""
    if no_worker:
        return ResultTimeout(
            f"job {job_id} had no answer within {timeout or 0:g} s, because no worker takes jobs from its queue; "
            "start one with `nameshot worker`, which runs the job unless its expires_in is over.",
            no_worker=True,
        )
    return ResultTimeout(f"job {job_id} had no answer within {timeout or 0:g} s; it continues, so try again later.")


def answer_in(known: KnownAnswers, job_id: str, timeout: float | None) -> Answer | None:
    """Return the job's terminal answer, or None if the caller should wait; raises an error if waiting is useless."""
    if (answer := known.answers.get(job_id)) is not None:
        return existing(answer, job_id) if answer.is_terminal or answer.state == "unknown" else None
    # The broker is down, but the answer may still arrive from the result backend.
    if known.fault is not None and (timeout == 0 or not known.fault.may_pass):
        raise known.fault
    return None


def existing(answer: Answer, job_id: str) -> Answer:
    """Return the answer; raises `JobNotFound` if there is no such job."""
    if answer.state == "unknown":
        raise not_found(job_id)
    return answer


def answer_within(
    waiting: Future[Answer],
    job_id: str,
    timeout: float | None,
    *,
    until_s: float | None,
    finds_no_worker: Callable[[], Future[bool]],
) -> Answer:
    """Wait for the answer in this thread until `time.monotonic` is ``until_s``; then raises `ResultTimeout`."""
    look: Future[bool] | None = None
    try:
        if (look_s := look_at_s(timeout, until_s)) is not None:
            wait([waiting], max(0.0, look_s - time.monotonic()))
            look = None if waiting.done() else finds_no_worker()
        return waiting.result(None if until_s is None else max(0.0, until_s - time.monotonic()))
    except TimeoutError:
        if waiting.done() and not waiting.cancelled():
            return waiting.result()
        raise timed_out(job_id, timeout, no_worker=found_none(look)) from None
    finally:
        if look is not None:
            look.cancel()
        # After a timeout or Ctrl-C this ends the subscription; after an answer it does nothing.
        waiting.cancel()
