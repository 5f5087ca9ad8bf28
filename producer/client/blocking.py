"""The blocking client, for scripts, threads and ordinary web apps."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Never, Self, Unpack

from producer.client.bulk import run_bulk
from producer.client.configuration import configure
from producer.client.jobs import Job, answer_in, answer_within, check_wait, existing
from producer.client.portions import IMAGES_PER_MESSAGE, IN_FLIGHT, BulkOutcome, BulkPlan, check_many
from producer.contract.labels import DEFAULT_TEMPLATE
from producer.contract.names import Queue
from producer.contract.result import Result
from producer.messages.options import JobId, SubmitOptions, Templates
from producer.messages.submission import JobLike, Submission, check_job_id, known_job_id
from producer.operations.answers import Answer
from producer.operations.backlog import Backlog, backlog, queue_depths
from producer.operations.ending import cancel, cancel_rest, forget
from producer.operations.standing import known_answers, look_up, position
from producer.operations.submitting import submit

if TYPE_CHECKING:
    from producer.client.background import BackgroundListener


class Client:
    """Sends jobs and reads their answers. Threads may share a client, which connects at its first call.

    ```python
    with Client() as client:
        job = client.submit("https://example.com/owl.jpg", ["fox", "bear", "seagull", "owl"])
        print(job.result(timeout=30).best.label)
    ```

    If Redis cannot be reached, a method raises `BrokerUnavailable` within 3 seconds. Only `classify_many`, and a call
    that is already waiting for an answer, tolerate an outage of up to a minute. A method that submits jobs raises
    `InvalidJob` for an invalid job before it sends that job.

    Args:
        broker_url: the Redis that holds the queues. Each argument that is None is read from the environment:
            `broker_url` from ``NAMESHOT_BROKER_URL``, `result_ttl` from ``NAMESHOT_RESULT_TTL``, and so on.
        result_backend: the Redis that holds the answers.
        result_ttl: how many seconds Redis keeps a cancellation by this client. The id of a job without an answer stays
            in use for 7 days, or for the job's ``expires_in`` if that is longer, plus these seconds.
        queue_prefix: the prefix of the queues' names.
        max_queue: the number of waiting messages in a queue at which calls raise `QueueFull`.

    Raises:
        SettingsError: a value is invalid.
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
        # Imported here, so that a program loads redis-py only when it creates a client.
        from producer.broker.connections import AsyncLink, BlockingLink
        from producer.client.background import BackgroundListener

        self._config = config = configure(broker_url, result_backend, result_ttl, queue_prefix, max_queue)
        self._writer, self._link = config.writer, BlockingLink(config.broker, config.results)
        # The listener ends when this client is garbage-collected, so it must not keep a reference to the client.
        make_link = partial(AsyncLink, config.broker, config.results)
        self._listener: BackgroundListener = BackgroundListener(self._link, make_link, config.queue_prefix)

    def submit(
        self,
        url: str,
        labels: Sequence[str],
        *,
        hypothesis_template: Templates = DEFAULT_TEMPLATE,
        top_k: int | None = None,
        download_timeout: float | None = None,
        job_id: JobId | None = None,
        expires_in: float | None = None,
        retries: int = 0,
        queue: Queue = "default",
        **unknown: Never,
    ) -> Job:
        """Queue the classification of one image.

        Args:
            url: the http(s) URL of the image.
            labels: 1 to 1,000 candidate labels.
            hypothesis_template: a sentence with exactly one ``{}`` for the label; several sentences form an ensemble.
            top_k: how many of the best scores the answer keeps; None keeps all.
            download_timeout: the time limit of the image's download in seconds; None applies the worker's limit.
            job_id: 1 to 128 of ``A-Z a-z 0-9 _ -``, or a whole number or a UUID, whose text is the id. Until the job's
                result expires, a program may submit the same id with the same payload any number of times, and the job
                is queued once, unless it is purged or lost. None chooses a new id.
            expires_in: the seconds after which a worker no longer starts the job, see `Job.status`; None sets no limit.
            retries: how many more times, up to 10, workers run the job if it fails with a retryable error. They pause
                for about 5 s before the first retry and twice as long before each further one, at most 10 minutes, and
                start none after ``expires_in``. The job is ``queued`` meanwhile.
            queue: ``high``, ``default`` or ``bulk``.

        Raises:
            JobConflict: ``job_id`` was used with another payload; `forget` frees the id once the job is answered.
            QueueFull: the queue holds ``max_queue`` waiting messages.
        """
        submission = self._writer.single(
            url,
            labels,
            hypothesis_template=hypothesis_template,
            top_k=top_k,
            download_timeout=download_timeout,
            job_id=job_id,
            expires_in=expires_in,
            retries=retries,
            queue=queue,
            **unknown,
        )
        return self._submit([submission])[0]

    def classify(
        self, url: str, labels: Sequence[str], *, timeout: float | None = None, **options: Unpack[SubmitOptions]
    ) -> Result:
        """Submit a job and wait for its result, for at most ``timeout`` seconds; see `Job.result`.

        Args:
            **options: those of `submit`, namely ``hypothesis_template``, ``top_k``, ``download_timeout``, ``job_id``,
                ``expires_in``, ``retries`` and ``queue``.
        """
        check_wait(timeout)
        return self.submit(url, labels, **options).result(timeout)

    def submit_many(self, jobs: Iterable[JobLike]) -> list[Job]:
        """Queue many jobs, one message each, up to a hundred in one round trip.

        Args:
            jobs: any iterable of ``(url, labels)`` tuples, mappings of `submit`'s arguments, or `ClassifyJob`s.

        Returns:
            The handles, in the order of ``jobs``.

        Raises:
            InvalidJob, JobConflict, QueueFull: a job was refused. As the message says, the jobs before it are queued;
                those after it are not. If each job has a ``job_id``, the whole call may be repeated.
            Exception: any error that iterating over ``jobs`` raises; the jobs before it are queued.
        """
        handles: list[Job] = []
        for submissions, refusal in self._writer.chunks(jobs):
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
        download_timeout: float | None = None,
        expires_in: float | None = None,
        queue: Queue = "bulk",
        images_per_message: int = IMAGES_PER_MESSAGE,
        in_flight: int = IN_FLIGHT,
        ordered: bool = False,
        **unknown: Never,
    ) -> Generator[BulkOutcome, None, None]:
        """Classify any number of images with one set of labels, and yield outcomes as they finish.

        The call checks its arguments at once; iterating over the outcomes sends the messages. The iteration reads
        ``urls`` in the caller's thread, at most ``in_flight`` messages ahead, so ``urls`` may be endless. An invalid
        URL yields one outcome with an error. A full queue or a short outage of Redis delays the stream; the client
        sends a purged or lost message again. Stopping early (``break``, an exception) cancels the messages that have
        no answer yet.

        Args:
            images_per_message: 1 to 64; reduced if the answer would hold more than 20,000 scores.
            in_flight: the maximum number of messages whose outcomes have not been yielded yet; it bounds the memory.
            ordered: whether to yield in the order of ``urls``; a slow message then delays those behind it.

        Yields:
            `BulkOutcome`: ``image``, its ``index`` in ``urls``, and ``result`` or ``error``.
        """
        check_many(urls)
        plan = BulkPlan.checked(
            self._writer,
            labels,
            hypothesis_template=hypothesis_template,
            top_k=top_k,
            download_timeout=download_timeout,
            expires_in=expires_in,
            queue=queue,
            images_per_message=images_per_message,
            in_flight=in_flight,
            ordered=ordered,
            **unknown,
        )
        return run_bulk(plan, urls, submit=self._submit, wait=self._listener.wait, cancel_rest=self._cancel_rest)

    def job(self, job_id: JobId) -> Job:
        """Return the handle for a known id without contacting Redis; raises `InvalidJob` for an invalid id."""
        return Job(check_job_id(job_id), self)

    def look_up(self, job_id: JobId) -> Answer:
        """Return the job's current answer, terminal or not; see `Job.status`."""
        job_id = known_job_id(job_id)
        return self._link.run(look_up(self._config.queue_prefix, [job_id]))[job_id]

    def wait_for(self, job_id: JobId, timeout: float | None) -> Answer:
        """Wait for the job's terminal answer, for at most ``timeout`` seconds; see `Job.answer`."""
        job_id, timeout = known_job_id(job_id), check_wait(timeout)
        until_s = None if timeout is None else time.monotonic() + timeout
        known = self._link.run(known_answers(self._config.queue_prefix, [job_id]))
        if (answer := answer_in(known, job_id, timeout)) is None:
            listener = self._listener
            look = partial(listener.finds_no_worker, job_id)
            answer = answer_within(listener.wait(job_id), job_id, timeout, until_s=until_s, finds_no_worker=look)
        return existing(answer, job_id)

    def cancel(self, job_id: JobId) -> bool:
        """Cancel a job by its id; see `Job.cancel`."""
        operation = cancel(self._config.queue_prefix, known_job_id(job_id), result_ttl_s=self._config.result_ttl_s)
        return self._link.run(operation)

    def forget(self, job_id: JobId) -> bool:
        """Free the id of an answered or lost job for a new job, and delete the answer; return whether this was done.

        It is not done if there is nothing to free, or if other programs keep changing the job. A worker that receives
        or still holds the old message will not answer the new job.
        """
        operation = forget(self._config.queue_prefix, check_job_id(job_id), result_ttl_s=self._config.result_ttl_s)
        return self._link.run(operation)

    def position(self, job_id: JobId) -> int | None:
        """Return how many messages are ahead of the job in its queue, or None if it is not waiting."""
        return self._link.run(position(self._config.queue_prefix, known_job_id(job_id)))

    def backlog(self) -> Backlog:
        """Count the messages that are accepted and unanswered: waiting, postponed, or held by workers."""
        return self._link.run(backlog(self._config.queue_prefix))

    def queue_depths(self) -> dict[Queue, int]:
        """Return the number of waiting messages in each queue."""
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

    def _cancel_rest(self, job_ids: Iterable[str]) -> None:
        self._link.run(cancel_rest(self._config.queue_prefix, job_ids, result_ttl_s=self._config.result_ttl_s))

    def _submit(self, submissions: list[Submission], *, before: int = 0) -> list[Job]:
        prefix, most = self._config.queue_prefix, self._config.max_queue
        operation = submit(prefix, submissions, max_queue=most, submitted_before=before)
        done = self._link.run(operation)
        return [Job(sent.job_id, self, is_new) for sent, is_new in zip(submissions, done, strict=True)]
