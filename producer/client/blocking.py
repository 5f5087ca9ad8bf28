"""The client for programs that block: scripts, threads, ordinary web apps."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Self

from producer.client.bulk import run_bulk
from producer.client.configuration import configure
from producer.client.jobs import Job, answer_in, answer_within, check_wait, existing
from producer.client.portions import BulkOutcome, BulkPlan, check_many
from producer.contract import DEFAULT_TEMPLATE, Queue, Result
from producer.messages.submission import JobLike, Submission, Templates, check_job_id
from producer.operations.answers import Answer
from producer.operations.backlog import Backlog, backlog, queue_depths
from producer.operations.ending import cancel, forget
from producer.operations.standing import glance, look_up, position
from producer.operations.submitting import submit

if TYPE_CHECKING:
    from producer.client.background import BackgroundListener


class Client:
    """Sends jobs and reads their answers. Threads may share one; it connects at the first call.

    ::

        with Client() as client:
            job = client.submit("https://example.com/owl.jpg", ["fox", "bear", "seagull", "owl"])
            print(job.result(timeout=30).best)

    Every method raises `BrokerUnavailable` within 3 seconds when Redis cannot be reached; every method that takes
    arguments of a job raises `InvalidJob` before anything is sent.

    Args:
        broker_url: where the queues are; None reads ``NAMESHOT_BROKER_URL``. The others likewise.
        result_backend: where the answers are.
        result_ttl: seconds for which this client's cancellations are kept, and ids beyond their longest wait.
        queue_prefix: first part of the queues' names.
        max_queue: waiting messages in a queue from which `QueueFull` is raised.

    Raises:
        SettingsError: a value that cannot be used.
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
        # Here, and not above: redis-py is loaded by a program that makes a client, not by one that imports us.
        from producer.broker.connections import AsyncLink, BlockingLink
        from producer.client.background import BackgroundListener

        self._config = config = configure(
            broker_url=broker_url,
            result_backend=result_backend,
            result_ttl=result_ttl,
            queue_prefix=queue_prefix,
            max_queue=max_queue,
        )
        self._desk, self._link = config.desk, BlockingLink(config.broker, config.results)
        # The listener must not refer to this client, whose end ends it.
        make_link = partial(AsyncLink, config.broker, config.results)
        self._listener: BackgroundListener = BackgroundListener(make_link, config.queue_prefix)

    def submit(
        self,
        url: str,
        labels: Sequence[str],
        *,
        hypothesis_template: Templates = DEFAULT_TEMPLATE,
        top_k: int | None = None,
        timeout: float | None = None,
        job_id: str | None = None,
        expires_in: float | None = None,
        queue: Queue = "default",
    ) -> Job:
        """Queue the classification of one image.

        Args:
            url: http(s) URL of the image.
            labels: 1 to 1,000 candidate labels.
            hypothesis_template: with exactly one ``{}``; several make an ensemble.
            top_k: keep the best k scores in the answer.
            timeout: seconds for the image's download.
            job_id: 1 to 128 of ``A-Z a-z 0-9 _ -``; the same id with the same payload is queued once, however often
                it is submitted, and lives as long as its result; again only if it was purged or lost.
            expires_in: seconds after which a worker should no longer start it.
            queue: ``high``, ``default`` or ``bulk``.

        Raises:
            JobConflict: ``job_id`` stands for another payload; `forget` frees it once it is answered.
            QueueFull: the queue holds ``max_queue`` waiting messages.
        """
        submission = self._desk.single(
            url,
            labels,
            hypothesis_template=hypothesis_template,
            top_k=top_k,
            timeout=timeout,
            job_id=job_id,
            expires_in=expires_in,
            queue=queue,
        )
        return self._submit([submission])[0]

    def classify(
        self,
        url: str,
        labels: Sequence[str],
        *,
        hypothesis_template: Templates = DEFAULT_TEMPLATE,
        top_k: int | None = None,
        timeout: float | None = None,
        job_id: str | None = None,
        expires_in: float | None = None,
        queue: Queue = "default",
        result_timeout: float | None = None,
    ) -> Result:
        """As `submit`, and wait for the result, for at most ``result_timeout`` seconds; see `Job.result`."""
        check_wait(result_timeout, "result_timeout")
        job = self.submit(
            url,
            labels,
            hypothesis_template=hypothesis_template,
            top_k=top_k,
            timeout=timeout,
            job_id=job_id,
            expires_in=expires_in,
            queue=queue,
        )
        return job.result(result_timeout)

    def submit_many(self, jobs: Iterable[JobLike]) -> list[Job]:
        """Queue many jobs, each a message of its own, some hundred in one round trip, fewer of long ones.

        Args:
            jobs: ``(url, labels)`` tuples, mappings of `submit`'s arguments, or `ClassifyJob`s; any iterable.

        Returns:
            The handles, in the order of ``jobs``.

        Raises:
            InvalidJob, JobConflict, QueueFull: about the first job that is refused. Those before it are queued, as
                the message says, and those after it are not. With a ``job_id`` each, the whole call can simply be
                repeated.
            Exception: what reading ``jobs`` raises, as it is, once those before it are queued.
        """
        handles: list[Job] = []
        for submissions, refusal in self._desk.chunks(jobs):
            handles += self._submit(submissions, before=len(handles))
            if refusal is not None:
                raise refusal
        return handles

    def classify_many(
        self,
        urls: Iterable[str],
        labels: Sequence[str],
        *,
        hypothesis_template: Templates = DEFAULT_TEMPLATE,
        top_k: int | None = None,
        timeout: float | None = None,
        expires_in: float | None = None,
        queue: Queue = "bulk",
        images_per_message: int = 32,
        in_flight: int = 64,
        ordered: bool = False,
    ) -> Generator[BulkOutcome, None, None]:
        """Classify any number of images with one set of labels; yields outcomes as they finish.

        The arguments are checked at once; the messages are sent while the outcomes are read. ``urls`` is read in the
        caller's thread, only as far ahead as ``in_flight`` messages, so it may be endless. A bad URL is one outcome
        with an error. A full queue or a short absence of Redis slows the stream; a message that is purged or lost is
        sent again. Leaving early (``break``, an exception) cancels the messages that have no answer yet.

        Args:
            images_per_message: 1 to 64; fewer are sent where the answer would hold more than 20,000 scores.
            in_flight: messages sent and not yet yielded, which bounds memory.
            ordered: yield in the order of ``urls``, where a slow message holds up those behind it.

        Yields:
            `BulkOutcome`: ``image``, its ``index`` in ``urls``, and ``result`` or ``error``.
        """
        check_many(urls)
        plan = BulkPlan.checked(
            self._desk,
            labels,
            hypothesis_template=hypothesis_template,
            top_k=top_k,
            timeout=timeout,
            expires_in=expires_in,
            queue=queue,
            images_per_message=images_per_message,
            in_flight=in_flight,
            ordered=ordered,
        )
        return run_bulk(plan, urls, submit=self._submit, wait=self._listener.wait, cancel=self.cancel)

    def job(self, job_id: str) -> Job:
        """The handle for a known id; asks nothing yet. Raises `InvalidJob` for what cannot be an id."""
        return Job(check_job_id(job_id), self)

    def look_up(self, job_id: str) -> Answer:
        """The job's answer as it stands, terminal or not; see `Job.status`."""
        return self._link.run(look_up(self._config.queue_prefix, [job_id]))[job_id]

    def wait_for(self, job_id: str, timeout: float | None) -> Answer:
        """Wait for the job's terminal answer, for at most ``timeout`` seconds; see `Job.answer`."""
        timeout = check_wait(timeout)
        until_s = None if timeout is None else time.monotonic() + timeout
        seen = self._link.run(glance(self._config.queue_prefix, [job_id]))
        if (answer := answer_in(seen, job_id, timeout)) is None:
            answer = answer_within(self._listener.wait(job_id), job_id, timeout, until_s=until_s)
        return existing(answer, job_id)

    def cancel(self, job_id: str) -> bool:
        """Cancel a job by its id; see `Job.cancel`."""
        return self._link.run(cancel(self._config.queue_prefix, job_id, result_ttl_s=self._config.result_ttl_s))

    def forget(self, job_id: str) -> bool:
        """Free the id of a job that is answered, or lost, for any payload; False where there was nothing to free.

        The answer is gone for every caller, and neither a second delivery of the old message nor a worker that was
        frozen with it ever answers the new one. May be repeated.
        """
        operation = forget(self._config.queue_prefix, check_job_id(job_id), result_ttl_s=self._config.result_ttl_s)
        return self._link.run(operation)

    def position(self, job_id: str) -> int | None:
        """How many messages are before a job's in its queue; None when it does not wait there."""
        return self._link.run(position(self._config.queue_prefix, job_id))

    def backlog(self) -> Backlog:
        """How many messages were accepted and are not answered: waiting, postponed, in the hands of workers."""
        return self._link.run(backlog(self._config.queue_prefix))

    def queue_depths(self) -> dict[Queue, int]:
        """The number of waiting messages of each queue."""
        return self._link.run(queue_depths(self._config.queue_prefix))

    def close(self) -> None:
        """Close every connection. Threads that still wait get `BrokerUnavailable`."""
        self._listener.close()
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client(broker_url={self._config.broker.shown!r}, result_backend={self._config.results.shown!r})"

    def _submit(self, submissions: list[Submission], *, before: int = 0) -> list[Job]:
        prefix, most = self._config.queue_prefix, self._config.max_queue
        operation = submit(prefix, submissions, max_queue=most, submitted_before=before)
        done = self._link.run(operation)
        return [Job(sent.job_id, self, each.is_new) for sent, each in zip(submissions, done, strict=True)]
