"""The client for asyncio programs: the same methods as coroutines and async iterators."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Self, Unpack

from producer.client.aio_bulk import run_bulk
from producer.client.configuration import configure
from producer.client.jobs import AsyncJob, answer_in, check_wait, existing, timed_out
from producer.client.portions import BulkOutcome, BulkPlan, check_many
from producer.client.worker_look import LookAhead
from producer.contract.names import Queue
from producer.contract.result import Result
from producer.messages.options import BulkOptions, JobId, SubmitOptions
from producer.messages.submission import JobLike, Submission, check_job_id, known_job_id
from producer.operations.answers import Answer
from producer.operations.backlog import Backlog, backlog, queue_depths
from producer.operations.ending import cancel, cancel_rest, forget
from producer.operations.standing import known_answers, look_up, position
from producer.operations.submitting import submit

if TYPE_CHECKING:
    from producer.client.aio_links import LinkOfEachLoop


class AsyncClient:
    """The asyncio `Client`; it never blocks the event loop, and any number of tasks may share it.

    ```python
    async with AsyncClient() as client:
        job = await client.submit("https://example.com/owl.jpg", ["fox", "bear", "seagull", "owl"])
        print((await job.result(timeout=30)).best.label)
    ```

    Arguments and errors are those of `Client`. The client awaits thousands of jobs at once over one connection. In each
    event loop that uses it, such as that of another thread or ``asyncio.run``, it opens separate connections.
    """

    def __init__(
        self,
        broker_url: str | None = None,
        result_backend: str | None = None,
        *,
        result_ttl: int | None = None,
        queue_prefix: str | None = None,
        max_queue: int | None = None,
    ) -> None:
        # Imported here, as in `Client`, to keep `import producer` cheap.
        from producer.client.aio_links import LinkOfEachLoop

        self._config = config = configure(broker_url, result_backend, result_ttl, queue_prefix, max_queue)
        self._writer = config.writer
        self._link: LinkOfEachLoop = LinkOfEachLoop(config)

    async def submit(self, url: str, labels: Sequence[str], **options: Unpack[SubmitOptions]) -> AsyncJob:
        """Do the same as `Client.submit`.

        Args:
            **options: ``hypothesis_template``, ``top_k``, ``download_timeout``, ``job_id``, ``expires_in``,
                ``retries`` and ``queue``.
        """
        async with await self._link.writing():
            return (await self._submit([self._writer.single(url, labels, **options)]))[0]

    async def classify(
        self,
        url: str,
        labels: Sequence[str],
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the same signature as `Client.classify`
        **options: Unpack[SubmitOptions],
    ) -> Result:
        """Do the same as `Client.classify`.

        Args:
            **options: ``hypothesis_template``, ``top_k``, ``download_timeout``, ``job_id``, ``expires_in``,
                ``retries`` and ``queue``.
        """
        check_wait(timeout)
        return await (await self.submit(url, labels, **options)).result(timeout)

    async def submit_many(self, jobs: Iterable[JobLike]) -> list[AsyncJob]:
        """Do the same as `Client.submit_many`."""
        handles: list[AsyncJob] = []
        for submissions, refusal in self._writer.chunks(jobs):
            handles += await self._submit(submissions, before=len(handles))
            if refusal is not None:
                raise refusal
        return handles

    def classify_many(
        self, urls: Iterable[str] | AsyncIterable[str], labels: Sequence[str], **options: Unpack[BulkOptions]
    ) -> AsyncGenerator[BulkOutcome, None]:
        """Do the same as `Client.classify_many`; ``urls`` may also be an async iterable.

        The event loop reads a plain iterable, so that iterable should not block. To stop early, wrap the stream in
        ``contextlib.aclosing``: closing the generator cancels the messages in flight.

        Args:
            **options: ``hypothesis_template``, ``top_k``, ``download_timeout``, ``expires_in``, ``queue``,
                ``images_per_message``, ``in_flight`` and ``ordered``.
        """
        check_many(urls, (Iterable, AsyncIterable))
        plan = BulkPlan.checked(self._writer, labels, **options)
        return run_bulk(plan, urls, submit=self._submit, wait=self._link.wait, cancel_rest=self._cancel_rest)

    def job(self, job_id: JobId) -> AsyncJob:
        """Do the same as `Client.job`."""
        return AsyncJob(check_job_id(job_id), self)

    async def look_up(self, job_id: JobId) -> Answer:
        """Do the same as `Client.look_up`."""
        job_id = known_job_id(job_id)
        return (await self._link.run(look_up(self._config.queue_prefix, [job_id])))[job_id]

    async def wait_for(self, job_id: JobId, timeout: float | None) -> Answer:  # noqa: ASYNC109 - as above
        """Do the same as `Client.wait_for`."""
        job_id, timeout = known_job_id(job_id), check_wait(timeout)
        until_s = None if timeout is None else asyncio.get_running_loop().time() + timeout
        known = await self._link.run(known_answers(self._config.queue_prefix, [job_id]))
        if (answer := answer_in(known, job_id, timeout)) is None:
            with LookAhead(partial(self._link.finds_no_worker, job_id), timeout, until_s) as look:
                try:
                    async with asyncio.timeout_at(until_s):
                        answer = await self._link.wait(job_id)
                except TimeoutError:
                    raise timed_out(job_id, timeout, no_worker=look.found_none()) from None
        return existing(answer, job_id)

    async def cancel(self, job_id: JobId) -> bool:
        """Do the same as `Client.cancel`."""
        operation = cancel(self._config.queue_prefix, known_job_id(job_id), result_ttl_s=self._config.result_ttl_s)
        return await self._link.run(operation)

    async def forget(self, job_id: JobId) -> bool:
        """Do the same as `Client.forget`."""
        job_id = check_job_id(job_id)
        return await self._link.run(forget(self._config.queue_prefix, job_id, result_ttl_s=self._config.result_ttl_s))

    async def position(self, job_id: JobId) -> int | None:
        """Do the same as `Client.position`."""
        return await self._link.run(position(self._config.queue_prefix, known_job_id(job_id)))

    async def backlog(self) -> Backlog:
        """Do the same as `Client.backlog`."""
        return await self._link.run(backlog(self._config.queue_prefix))

    async def queue_depths(self) -> dict[Queue, int]:
        """Do the same as `Client.queue_depths`."""
        return await self._link.run(queue_depths(self._config.queue_prefix))

    async def close(self) -> None:
        """Close every connection of this event loop. Tasks that still wait get `BrokerUnavailable`."""
        await self._link.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient(broker_url={self._config.broker.shown!r}, result_backend={self._config.results.shown!r})"

    async def _cancel_rest(self, job_ids: Iterable[str]) -> None:
        await self._link.run(cancel_rest(self._config.queue_prefix, job_ids, result_ttl_s=self._config.result_ttl_s))

    async def _submit(self, submissions: list[Submission], *, before: int = 0) -> list[AsyncJob]:
        config = self._config
        operation = submit(config.queue_prefix, submissions, max_queue=config.max_queue, submitted_before=before)
        done = await self._link.run(operation)
        return [AsyncJob(sent.job_id, self, is_new) for sent, is_new in zip(submissions, done, strict=True)]
