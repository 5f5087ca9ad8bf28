"""The two Celery tasks: validate the message, classify, store the answer, and map errors to the contract's failures.

Celery does the rest: it acknowledges the message and publishes events.
"""

from __future__ import annotations

import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, NoReturn

from celery import Celery, Task
from celery.exceptions import Ignore, Reject
from celery.states import FAILURE, SUCCESS
from redis import RedisError

from producer.contract.job import ClassifyJob, ClassifyManyJob
from producer.contract.names import CLASSIFY, CLASSIFY_MANY, SENT_AT_HEADER
from producer.contract.result import Result
from producer.errors import InvalidJob, JobFailed
from worker.classifier import Attempt, Classifier
from worker.concurrency.cancel_scope import Cancelled, CancelScope
from worker.delivery.credit import queue_of
from worker.delivery.taken import TAKEN_HEADER, Deaths
from worker.engine.capacity import BULK_TIME_FACTOR
from worker.jobs.results import Unanswerable
from worker.jobs.running_worker import RunningWorker, worker_of
from worker.runtime.logs import place_of

logger = logging.getLogger(__name__)

#: Longer waits than a year are implausible (a wrong clock) and are dropped: one would ruin the histogram's sum.
LONGEST_QUEUED_MS: Final = 366 * 86_400_000.0
#: A job that can neither be answered nor stored nor postponed is requeued after this long, so that it does not keep the
#: worker busy.
GIVE_UP_PAUSE_S: Final = 1.0


class JobTask(Task, ABC):  # type: ignore[misc]  # celery is untyped
    """The base of both tasks: late acknowledgement, and failures that are stored as answers."""

    abstract = True
    Strategy = "worker.jobs.messages:careful_strategy"
    Request = "worker.jobs.requests:JobRequest"
    acks_late = True
    # A worker that cannot store or finish a job leaves the message to another one.
    reject_on_worker_lost = True
    throws = (JobFailed,)
    # The contract validates arguments, with better messages than a signature check.
    typing = False
    # Celery builds this text for each result, even if it is not logged.
    resultrepr_maxsize = 16
    #: A message's time limit is this multiple of NAMESHOT_JOB_TIMEOUT.
    time_factor = 1

    @property
    def worker(self) -> RunningWorker:
        """The worker that runs this task."""
        return worker_of(self.app)

    @abstractmethod
    def work(self, classifier: Classifier, attempt: Attempt) -> dict[str, Any]:
        """Return the answer of the message in hand; raises `JobFailed`, `InvalidJob` and `Cancelled`."""

    def run(self, *_args: object, **_kwargs: object) -> None:
        """Run one job, unless it has an answer or has expired, and store its answer, however long that takes.

        Celery would store the result afterwards, and acknowledge the message even if that failed. It would also format
        a returned result, all thousand scores of it, to keep only a few characters.

        Raises:
            Ignore: the job has another answer; or its answer can never be stored, and the message is a dead letter.
            JobFailed: the job failed, and this failure is stored as its answer.
            Reject: neither the answer nor a dead letter can be stored now; the message is requeued.
        """
        deaths = getattr(self.request, TAKEN_HEADER).deaths
        try:
            try:
                with _contract_failures(self.request.id), self._attempt(deaths) as attempt:
                    result = self.work(self.worker.service.classifier, attempt)
            except JobFailed as failure:
                self._store(failure, FAILURE, failure.code)
                raise
            except Cancelled:
                # The client that cancelled should have written the answer. A message without one must not be
                # acknowledged.
                self._revoke("cancelled", "job %s was cancelled while it ran")
            self._store(result, SUCCESS, "ok")
        except Unanswerable as error:
            self._give_up(error)
        except (Ignore, JobFailed):
            self._acquit(deaths)
            raise
        self._acquit(deaths)

    def _give_up(self, reason: Unanswerable) -> NoReturn:
        """Store a job whose answer cannot be stored as a dead letter, or postpone it; it would come back at once."""
        request = self.request
        logger.error("job %s has no place for its answer (%s): it becomes a dead letter", request.id, reason)
        try:
            tag = request.properties["delivery_tag"]
            self.worker.delivery.dead_letters.unanswerable(tag, job_id=request.id, task=self.name)
        except RedisError as error:
            time.sleep(GIVE_UP_PAUSE_S)
            raise Reject(type(error).__name__, requeue=True) from None
        raise Ignore from None

    def _acquit(self, deaths: Deaths) -> None:
        """Clear the deaths of an answered job. Before its answer is stored it could run again, with all attempts."""
        if deaths.count:
            self.worker.delivery.suspects.acquit(self.request.id)

    def _store(self, answer: object, state: str, code: str) -> None:
        self.worker.answers.store_result(self.request.id, answer, state, request=self.request)
        self.worker.service.telemetry.answered(code)

    def _revoke(self, reason: str, message: str) -> NoReturn:
        """Answer a job that is not finished; raises `Ignore`."""
        self.worker.answers.mark_as_revoked(self.request.id, reason, request=self.request)
        self.worker.service.telemetry.answered(reason)
        logger.info(message, self.request.id)
        raise Ignore from None

    @contextmanager
    def _attempt(self, deaths: Deaths) -> Iterator[Attempt]:
        """Register the job as running, and yield the attempt that it gets.

        Raises:
            Ignore: the job has an answer, or has expired.
            JobFailed: ``poisoned``.
        """
        request, worker, suspects = self.request, self.worker, self.worker.delivery.suspects
        tag = request.properties["delivery_tag"]
        queue = queue_of((request.delivery_info or {}).get("routing_key"), worker.queue_prefix)

        def keep(deaths: int, image: int | None) -> None:
            worker.delivery.dead_letters.poisoned(tag, job_id=request.id, task=self.name, deaths=deaths, image=image)

        scope = CancelScope(math.inf)
        # The job is cancellable before its answer is looked up, so that no cancellation is missed in between.
        with worker.jobs.job(request.id, scope):
            self._check_time()
            if not worker.answers.begin(request.id, request):
                logger.info("job %s has its answer already", request.id)
                raise Ignore
            self._check_time()  # the result backend may have been away for long
            # The job's time starts here, since it may have waited for the result backend until now.
            scope.deadline_s = time.monotonic() + worker.service.job_timeout_s * self.time_factor
            attempt = Attempt(scope, queue, _queued_ms(request), on_outcome=partial(worker.outcomes.add, tag))
            if (suspect := suspects.examine(request.id, queue, deaths, keep)) is not None:
                images = partial(suspects.images, scope, suspect, deaths, keep)
                attempt = replace(attempt, scope=scope.of(suspect), images=images)
            yield attempt

    def _check_time(self) -> None:
        # `worker.jobs.messages.read_message` has validated the header.
        expires = self.request.expires
        if expires is not None and datetime.now(UTC) >= datetime.fromisoformat(expires):
            self._revoke("expired", "job %s expired while it waited")


class ClassifyTask(JobTask):
    """``nameshot.classify``: one image."""

    name = CLASSIFY

    def work(self, classifier: Classifier, attempt: Attempt) -> dict[str, Any]:
        """Return the image's ranking."""
        job = ClassifyJob.from_message(self.request.args, self.request.kwargs)
        result = classifier.classify(job, attempt)
        logger.info("job %s: %s", self.request.id, _summary(result))
        return result.to_dict()


class ClassifyManyTask(JobTask):
    """``nameshot.classify_many``: up to 64 images that share one question."""

    name = CLASSIFY_MANY
    time_factor = BULK_TIME_FACTOR

    def work(self, classifier: Classifier, attempt: Attempt) -> dict[str, Any]:
        """Return each image's ranking or failure."""
        job = ClassifyManyJob.from_message(self.request.args, self.request.kwargs)
        outcomes = classifier.classify_many(job, attempt)
        failed = [outcome for outcome in outcomes if isinstance(outcome, JobFailed)]
        codes = ", ".join(sorted({failure.code for failure in failed}))
        logger.info(
            "job %s: %d images, %d failed%s", self.request.id, len(outcomes), len(failed), codes and f" ({codes})"
        )
        return {
            "outcomes": [
                outcome.to_dict() if isinstance(outcome, Result) else {"error": outcome.to_dict()}
                for outcome in outcomes
            ]
        }


def register(app: Celery) -> None:
    """Add both tasks to an app."""
    for task in (ClassifyTask, ClassifyManyTask):
        # Unlike `register_task`, this reads no setting yet. Shared tasks would also be registered in every other app of
        # the process, and those have no running worker.
        app.task(name=task.name, base=task, bind=True, shared=False)(task.run)


@contextmanager
def _contract_failures(job_id: str) -> Iterator[None]:
    """Log a job's error and raise it as one of the contract's failures."""
    try:
        yield
    except (Cancelled, Ignore, Unanswerable):
        raise
    except JobFailed as failure:
        logger.info("job %s failed: %s", job_id, failure)
        raise
    except InvalidJob as error:
        logger.info("job %s failed: invalid_job: %s", job_id, error)
        raise JobFailed("invalid_job", str(error)) from None
    except MemoryError:
        # Celery ends the whole worker when a MemoryError leaves a task.
        logger.error("job %s failed: out of memory", job_id)
        raise JobFailed("out_of_memory", "the worker ran out of memory on this job.") from None
    except Exception as error:
        logger.error("job %s failed with %s at %s", job_id, type(error).__name__, place_of(error))
        raise JobFailed("model_error", "the worker failed on this job; its log says where.") from None


def _queued_ms(request: Any) -> float | None:
    """Return how long the message waited in ms, at least 0 since clocks differ; None without a plausible send time."""
    sent_at = (request.headers or {}).get(SENT_AT_HEADER) or getattr(request, SENT_AT_HEADER, None)
    if isinstance(sent_at, bool) or not isinstance(sent_at, int | float):
        return None
    queued_ms = round(max(0.0, time.time() - sent_at) * 1000, 3)
    return queued_ms if queued_ms <= LONGEST_QUEUED_MS else None


def _summary(result: Result) -> str:
    timings = result.timings_ms
    total_ms = timings.fetch + timings.decode + timings.wait + timings.forward
    how = f"batch of {result.batch_size}" if result.batch_size else "known picture"
    return f"{result.best.label!r} {result.best.score:.4f} in {total_ms:.0f} ms, {how}"
