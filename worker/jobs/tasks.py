"""The two Celery tasks: each validates its arguments, classifies, and stores the answer or the contract's failure.

Celery acknowledges the messages and publishes events.
"""

from __future__ import annotations

import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, Final, NoReturn

from celery import Celery, Task
from celery.exceptions import Ignore, Reject
from celery.states import FAILURE, SUCCESS
from redis import RedisError

from producer.contract.job import ClassifyJob, ClassifyManyJob
from producer.contract.names import CLASSIFY, CLASSIFY_MANY
from producer.contract.request_id import REQUEST_ID_HEADER
from producer.contract.result import Result
from producer.errors import InvalidJob, JobFailed
from worker.classifier import Attempt, Classifier
from worker.concurrency.cancel_scope import Cancelled, CancelScope
from worker.delivery.credit import queue_of
from worker.delivery.taken import TAKEN_HEADER, Deaths
from worker.engine.capacity import BULK_TIME_FACTOR
from worker.jobs.queued_time import queued_ms
from worker.jobs.results import Unanswerable
from worker.jobs.retrying import after_attempts, count_failed_attempts, failed_attempts, run_again_later
from worker.jobs.running_worker import RunningWorker, worker_of
from worker.runtime.logs import place_of
from worker.runtime.shortages import is_shortage

logger = logging.getLogger(__name__)

#: The worker pauses for this long before it requeues a job that it can neither answer nor store as a dead letter, so
#: that the job does not return at once.
GIVE_UP_PAUSE_S: Final = 1.0


class JobTask(Task, ABC):  # type: ignore[misc]  # celery is untyped
    """The base class of both tasks, which acknowledges late and stores failures as answers."""

    abstract = True
    Strategy = "worker.jobs.messages:validating_strategy"
    Request = "worker.jobs.requests:JobRequest"
    acks_late = True
    # If a worker can neither finish a job nor store its answer, another worker gets the message.
    reject_on_worker_lost = True
    throws = (JobFailed,)
    # The contract validates the arguments, and its error messages are better than those of a signature check.
    typing = False
    # Celery builds a text of this length for each result, even if it does not log the text.
    resultrepr_maxsize = 16
    #: The time limit of each image of a message is this multiple of NAMESHOT_JOB_TIMEOUT.
    time_factor = 1

    @property
    def worker(self) -> RunningWorker:
        """The worker that runs this task."""
        return worker_of(self.app)

    @abstractmethod
    def work(self, classifier: Classifier, attempt: Attempt) -> dict[str, Any]:
        """Return the answer for the current message.

        Raises:
            JobFailed: the job failed.
            InvalidJob: the message's arguments are not valid.
            Cancelled: the attempt's scope was cancelled.
        """

    def run(self, *_args: object, **_kwargs: object) -> None:
        """Run one job, unless it is answered, forgotten or expired, and store its answer, however long storing takes.

        The method returns None, because Celery would store a returned result itself and acknowledge the message even if
        that failed. Celery would also format all thousand scores of a returned result to keep only a few characters.

        Raises:
            Ignore: the job is not to run, or runs again later; or its answer can never be stored, and the message is a
                dead letter.
            JobFailed: the job failed, and this failure is stored as its answer.
            Reject: neither the answer nor a dead letter can be stored now; Celery requeues the message.
        """
        deaths = getattr(self.request, TAKEN_HEADER).deaths
        try:
            try:
                with _contract_failures(self.request.id), self._attempt(deaths) as attempt:
                    result = self.work(self.worker.service.classifier, attempt)
            except JobFailed as error:
                run_again_later(self.worker, self.request, error)
                failure = after_attempts(error, failed_attempts(self.request) + 1)
                self._store(failure, FAILURE, failure.code)
                raise failure from None
            except Cancelled:
                # The client that cancelled the job should have stored an answer. The worker stores one if it has not,
                # because a message without an answer must not be acknowledged.
                self._revoke("cancelled", "job %s was cancelled while it ran")
            if failed := failed_attempts(self.request):
                result["attempts"] = failed + 1
            self._store(result, SUCCESS, "ok")
        except Unanswerable as error:
            self._give_up(error)
        except (Ignore, JobFailed):
            self._acquit(deaths)
            raise
        self._acquit(deaths)

    def _give_up(self, reason: Unanswerable) -> NoReturn:
        """Store a job without a storable answer as a dead letter; if that fails too, requeue it after a pause."""
        request = self.request
        logger.error("job %s becomes a dead letter, because its answer cannot be stored (%s)", request.id, reason)
        try:
            tag = request.properties["delivery_tag"]
            self.worker.delivery.dead_letters.unanswerable(tag, job_id=request.id, task=self.name)
        except RedisError as error:
            time.sleep(GIVE_UP_PAUSE_S)
            raise Reject(type(error).__name__, requeue=True) from None
        raise Ignore from None

    def _acquit(self, deaths: Deaths) -> None:
        """Clear the recorded deaths of a job that is answered or postponed; before that, it might cause one more."""
        if deaths.count:
            self.worker.delivery.suspects.acquit(self.request.id)

    def _store(self, answer: object, state: str, code: str) -> None:
        self.worker.answers.store_result(self.request.id, answer, state, request=self.request)
        self.worker.service.telemetry.answered(code)

    def _revoke(self, reason: str, message: str) -> NoReturn:
        """Store the answer of a cancelled or expired job and raise `Ignore`."""
        self.worker.answers.mark_as_revoked(self.request.id, reason, request=self.request)
        self.worker.service.telemetry.answered(reason)
        logger.info(message, self.request.id)
        raise Ignore from None

    @contextmanager
    def _attempt(self, deaths: Deaths) -> Iterator[Attempt]:
        """Register the job as running, check that it should run, and yield the attempt for its images.

        Raises:
            Ignore: the job is answered, forgotten or expired.
            JobFailed: ``poisoned``: several workers died with the job in hand.
        """
        request, worker, suspects = self.request, self.worker, self.worker.delivery.suspects
        tag = request.properties["delivery_tag"]
        queue = queue_of((request.delivery_info or {}).get("routing_key"), worker.queue_prefix)

        def keep(deaths: int, image: int | None) -> None:
            worker.delivery.dead_letters.poisoned(tag, job_id=request.id, task=self.name, deaths=deaths, image=image)

        scope = CancelScope(math.inf)
        # Registering the job before its answer is read ensures that no cancellation in between is missed.
        with worker.jobs.job(request.id, scope):
            self._check_time()
            count_failed_attempts(worker, request)
            if not worker.answers.begin(request.id, request):
                logger.info("job %s does not run: it is answered or forgotten already", request.id)
                raise Ignore
            if (request_id := getattr(request, REQUEST_ID_HEADER, None)) is not None:
                logger.info("job %s begins; request %s of the HTTP API submitted it", request.id, request_id)
            self._check_time()  # `begin` may have waited for the result backend for a long time
            # The job's time starts only here, because that wait must not use it up.
            scope.deadline_s = time.monotonic() + worker.service.job_timeout_s * self.time_factor
            attempt = Attempt(
                scope,
                queue,
                queued_ms(request, self._now_s()),
                on_outcome=partial(worker.outcomes.add, tag),
                running=partial(worker.jobs.job, request.id),
            )
            if (suspect := suspects.examine(request.id, queue, deaths, keep)) is not None:
                images = partial(suspects.images, scope, suspect, deaths, keep)
                attempt = replace(attempt, scope=scope.of(suspect), images=images)
            yield attempt

    def _now_s(self) -> float:
        return self.worker.delivery.clock.now_s()

    def _check_time(self) -> None:
        # The header is a valid time, because `worker.jobs.messages.read_message` has checked it.
        expires = self.request.expires
        if expires is not None and self._now_s() >= datetime.fromisoformat(expires).timestamp():
            self._revoke("expired", "job %s expired while it waited")


class ClassifyTask(JobTask):
    """``nameshot.classify``: one image."""

    name = CLASSIFY

    def work(self, classifier: Classifier, attempt: Attempt) -> dict[str, Any]:
        """Return the image's ranking."""
        job = ClassifyJob.from_message(self.request.args, self.request.kwargs)
        result = classifier.classify(job, attempt)
        logger.info("job %s: %s", self.request.id, _summary(result))
        return _answer_of(result)


class ClassifyManyTask(JobTask):
    """``nameshot.classify_many``: up to 64 images with the same candidate labels."""

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
                _answer_of(outcome) if isinstance(outcome, Result) else {"error": outcome.to_dict()}
                for outcome in outcomes
            ]
        }


def register(app: Celery) -> None:
    """Add both tasks to an app."""
    for task in (ClassifyTask, ClassifyManyTask):
        # Unlike `register_task`, this call reads no setting. A shared task would also be registered in every other app
        # of the process, which has no running worker.
        app.task(name=task.name, base=task, bind=True, shared=False)(task.run)


@contextmanager
def _contract_failures(job_id: str) -> Iterator[None]:
    """Log an error of the job and raise it as one of the contract's failures."""
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
    except Exception as error:
        # Celery ends the whole worker when a MemoryError leaves a task.
        if is_shortage(error):
            logger.error("job %s failed: no memory, threads or open files left (%s)", job_id, type(error).__name__)
            raise JobFailed("out_of_memory", "the worker had no memory, threads or open files left.") from None
        logger.error("job %s failed with %s at %s", job_id, type(error).__name__, place_of(error))
        raise JobFailed("model_error", "the worker failed on this job; its log says where.") from None


def _answer_of(result: Result) -> dict[str, Any]:
    answer = result.to_dict()
    del answer["attempts"]  # the answer states them only if the job ran more than once
    return answer


def _summary(result: Result) -> str:
    timings = result.timings_ms
    total_ms = timings.fetch + timings.decode + timings.wait + timings.forward
    how = f"batch of {result.batch_size}" if result.batch_size else "known picture"
    return f"{result.best.label!r} {result.best.score:.4f} in {total_ms:.0f} ms, {how}"
