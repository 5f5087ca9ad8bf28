"""The two Celery tasks: validate the message, classify, store the answer, and map errors to the contract's failures.

Celery does the rest: it acknowledges the message and publishes events.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, NoReturn

from celery import Celery, Task
from celery.exceptions import Ignore, Reject
from celery.states import FAILURE, SUCCESS
from redis import RedisError

from producer.contract import (
    CLASSIFY,
    CLASSIFY_MANY,
    QUEUES,
    SENT_AT_HEADER,
    ClassifyJob,
    ClassifyManyJob,
    Queue,
    Result,
    error_to_json,
    queue_name,
)
from producer.errors import InvalidJob, JobFailed
from worker.classifier import Attempt
from worker.concurrency.cancel_scope import Cancelled, CancelScope, Suspect
from worker.delivery.names import DEATHS_ALONE_HEADER, DEATHS_HEADER
from worker.delivery.suspects import Deaths
from worker.engine.capacity import BULK_TIME_FACTOR
from worker.jobs.results import FirstAnswerBackend, Unanswerable
from worker.runtime.logs import place_of
from worker.service import Service

logger = logging.getLogger(__name__)

#: Longer waits than a year are implausible (a wrong clock) and are dropped: one would ruin the histogram's sum.
LONGEST_QUEUED_MS: Final = 366 * 86_400_000.0
#: A job that can neither be answered nor stored nor postponed is requeued after this long, so that it does not keep the
#: worker busy.
GIVE_UP_PAUSE_S: Final = 1.0


class JobTask(Task):  # type: ignore[misc]  # celery is untyped
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

    def answer(self, work: Callable[[Service, Attempt], dict[str, Any]]) -> dict[str, Any] | None:
        """Run one job, unless it has an answer or has expired, and store its answer, however long that takes.

        Celery would store the result afterwards, and acknowledge the message even if that failed. The result is
        returned only if Celery has yet to store it.

        Raises:
            Ignore: the job has another answer; or its answer can never be stored, and the message is a dead letter.
            JobFailed: the job failed, and this failure is stored as its answer.
            Reject: neither the answer nor a dead letter can be stored now; the message is requeued.
        """
        request = self.request
        deaths = _deaths(request)
        try:
            try:
                result = self._outcome(work, deaths)
            except JobFailed as failure:
                self.backend.store_result(request.id, failure, FAILURE, request=request)
                self._count(failure.code)
                raise
            self.backend.store_result(request.id, result, SUCCESS, request=request)
            self._count("ok")
        except Unanswerable as error:
            self._give_up(error)
        except (Ignore, JobFailed):
            self._acquit(deaths)
            raise
        self._acquit(deaths)
        # Celery formats a returned result, all thousand scores of it, to keep only a few characters.
        return None if getattr(request, "is_answered", False) else result

    def _give_up(self, reason: Unanswerable) -> NoReturn:
        """Store a job whose answer cannot be stored as a dead letter, or postpone it; it would come back at once."""
        request = self.request
        logger.error("job %s has no place for its answer (%s): it becomes a dead letter", request.id, reason)
        try:
            tag = request.properties["delivery_tag"]
            self.app.delivery.dead_letters.unanswerable(tag, job_id=request.id, task=self.name)
        except RedisError as error:
            time.sleep(GIVE_UP_PAUSE_S)
            raise Reject(type(error).__name__, requeue=True) from None
        raise Ignore from None

    def _acquit(self, deaths: Deaths) -> None:
        """Clear the deaths of an answered job. Before its answer is stored it could run again, with all attempts."""
        if deaths.count:
            self.app.delivery.suspects.acquit(self.request.id)

    def _count(self, code: str) -> None:
        self.app.service.telemetry.answered(code)

    def _outcome(self, work: Callable[[Service, Attempt], dict[str, Any]], deaths: Deaths) -> dict[str, Any]:
        request = self.request
        suspects = self.app.delivery.suspects
        queue = _queue(request, self.app.settings.queue_prefix)

        def keep(deaths: int, image: int | None) -> None:
            tag = request.properties["delivery_tag"]
            self.app.delivery.dead_letters.poisoned(tag, job_id=request.id, task=self.name, deaths=deaths, image=image)

        try:
            waiting = CancelScope(math.inf)
            # The job is cancellable before its answer is looked up, so that no cancellation is missed in between.
            with self.app.running.job(request.id, waiting):
                self._begin(request)
                # The job's time starts here, since it may have waited for the result backend until now.
                scope = waiting.within(self.app.service.job_timeout_s * self.time_factor)
                with self.app.running.job(request.id, scope):
                    attempt = Attempt(
                        scope,
                        queue,
                        _queued_ms(request),
                        on_outcome=partial(self.app.outcomes.add, request.properties["delivery_tag"]),
                    )
                    if (suspect := suspects.examine(request.id, queue, deaths, keep)) is not None:
                        examine = partial(suspects.images, suspect, deaths, on_poisoned=keep)
                        images = partial(_image_scopes, scope, examine)
                        attempt = replace(attempt, scope=scope.of(suspect), images=images)
                    return work(self.app.service, attempt)
        except (Ignore, Unanswerable):
            raise
        except Cancelled:
            # The client that cancelled should have written the answer. A message without one must not be acknowledged.
            self.backend.mark_as_revoked(request.id, "cancelled", request=request)
            self._count("cancelled")
            logger.info("job %s was cancelled while it ran", request.id)
            raise Ignore from None
        except JobFailed as failure:
            logger.info("job %s failed: %s", request.id, failure)
            raise
        except InvalidJob as error:
            logger.info("job %s failed: invalid_job: %s", request.id, error)
            raise JobFailed("invalid_job", str(error)) from None
        except MemoryError:
            # Celery ends the whole worker when a MemoryError leaves a task.
            logger.error("job %s failed: out of memory", request.id)
            raise JobFailed("out_of_memory", "the worker ran out of memory on this job.") from None
        except Exception as error:
            logger.error("job %s failed with %s at %s", request.id, type(error).__name__, place_of(error))
            raise JobFailed("model_error", "the worker failed on this job; its log says where.") from None

    def _begin(self, request: Any) -> None:
        self._check_time(request)
        if isinstance(self.backend, FirstAnswerBackend) and not self.backend.begin(request.id, request):
            logger.info("job %s has its answer already", request.id)
            raise Ignore
        self._check_time(request)  # the result backend may have been away for long

    def _check_time(self, request: Any) -> None:
        if (expires := _moment(request.expires)) is not None and datetime.now(UTC) >= expires:
            self.backend.mark_as_revoked(request.id, "expired", request=request)
            self._count("expired")
            logger.info("job %s expired while it waited", request.id)
            raise Ignore


def classify(task: JobTask, /, *args: object, **kwargs: object) -> dict[str, Any] | None:
    """``nameshot.classify``: one image."""

    def work(service: Service, attempt: Attempt) -> dict[str, Any]:
        job = ClassifyJob.from_message(args, kwargs)
        result = service.classifier.classify(job, attempt)
        logger.info("job %s: %s", task.request.id, _summary(result))
        return result.to_json()

    return task.answer(work)


def classify_many(task: JobTask, /, *args: object, **kwargs: object) -> dict[str, Any] | None:
    """``nameshot.classify_many``: up to 64 images that share one question."""

    def work(service: Service, attempt: Attempt) -> dict[str, Any]:
        job = ClassifyManyJob.from_message(args, kwargs)
        outcomes = service.classifier.classify_many(job, attempt)
        failed = [outcome for outcome in outcomes if isinstance(outcome, JobFailed)]
        codes = ", ".join(sorted({failure.code for failure in failed}))
        logger.info(
            "job %s: %d images, %d failed%s", task.request.id, len(outcomes), len(failed), codes and f" ({codes})"
        )
        return {
            "outcomes": [
                outcome.to_json() if isinstance(outcome, Result) else error_to_json(outcome) for outcome in outcomes
            ]
        }

    return task.answer(work)


def register(app: Celery) -> None:
    """Add both tasks to an app."""
    # Shared tasks would also be registered in every other app of the process, and those have no service.
    app.task(name=CLASSIFY, base=JobTask, bind=True, shared=False)(classify)
    app.task(name=CLASSIFY_MANY, base=JobTask, bind=True, shared=False, time_factor=BULK_TIME_FACTOR)(classify_many)


def _deaths(request: Any) -> Deaths:
    """Return the worker deaths that the transport found for this message."""
    return Deaths(getattr(request, DEATHS_HEADER, 0), getattr(request, DEATHS_ALONE_HEADER, 0))


def _image_scopes(
    scope: CancelScope, examine: Callable[[int], Sequence[Suspect | JobFailed]], count: int
) -> list[CancelScope | JobFailed]:
    return [each if isinstance(each, JobFailed) else scope.of(each) for each in examine(count)]


def _queue(request: Any, prefix: str) -> Queue:
    """Return the queue that the message was taken from; ``default`` if it is unknown."""
    name = (request.delivery_info or {}).get("routing_key")
    return next((queue for queue in QUEUES if queue_name(prefix, queue) == name), "default")


def _queued_ms(request: Any) -> float | None:
    """Return how long the message waited in ms, at least 0 since clocks differ; None without a plausible send time."""
    sent_at = (request.headers or {}).get(SENT_AT_HEADER) or getattr(request, SENT_AT_HEADER, None)
    if isinstance(sent_at, bool) or not isinstance(sent_at, int | float):
        return None
    queued_ms = round(max(0.0, time.time() - sent_at) * 1000, 3)
    return queued_ms if queued_ms <= LONGEST_QUEUED_MS else None


def _moment(expires: object) -> datetime | None:
    """Return the time in Celery's ``expires`` header, in ISO 8601; None if there is none."""
    if not isinstance(expires, str):
        return None
    try:
        moment = datetime.fromisoformat(expires)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _summary(result: Result) -> str:
    timings = result.timings_ms
    total_ms = timings.fetch + timings.decode + timings.wait + timings.forward
    how = f"batch of {result.batch_size}" if result.batch_size else "known picture"
    return f"{result.best.label!r} {result.best.score:.4f} in {total_ms:.0f} ms, {how}"
