"""Decides whether and when a job that failed runs again, as its sender asked with `RETRIES_HEADER`."""

from __future__ import annotations

import logging
import random
from datetime import datetime
from typing import Any, Final

from celery.exceptions import Ignore
from celery.states import RETRY
from redis import RedisError

from producer.contract.names import RETRIES_HEADER
from producer.errors import JobFailed
from worker.delivery.outages import describe
from worker.delivery.taken import TAKEN_HEADER
from worker.jobs.requests import named
from worker.jobs.results import FAILED_ATTEMPTS
from worker.jobs.running_worker import RunningWorker

logger = logging.getLogger(__name__)

#: The first pause outlasts a short outage of a web server. Before jitter, no pause exceeds what a user may wait.
FIRST_PAUSE_S: Final = 5.0
LONGEST_PAUSE_S: Final = 600.0
#: Each pause is up to this share shorter or longer, so that jobs that failed together do not return together.
JITTER: Final = 0.2


def pause_s(failed_attempts: int) -> float:
    """Return how long a job pauses after this many failures, in seconds: about 5, 10, 20 and so on, up to about 600."""
    pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (failed_attempts - 1))
    return pause * random.uniform(1 - JITTER, 1 + JITTER)


def after_attempts(failure: JobFailed, attempts: int) -> JobFailed:
    """Return the failure; its message says how often workers ran the job if that was more than once."""
    if attempts == 1:
        return failure
    return JobFailed(failure.code, f"{failure.message} Workers tried {attempts} times.", failure.retryable)


def failed_attempts(request: Any) -> int:
    """Return how many earlier attempts at a job have failed; 0 until `count_failed_attempts` has read their number."""
    return getattr(request, FAILED_ATTEMPTS, 0)


def count_failed_attempts(worker: RunningWorker, request: Any) -> None:
    """Read from the job's answer how many attempts have failed; a worker's death is not counted as one."""
    if getattr(request, RETRIES_HEADER, 0):
        life = getattr(request, TAKEN_HEADER).life
        setattr(request, FAILED_ATTEMPTS, worker.answers.failed_attempts(request.id, life))


def run_again_later(worker: RunningWorker, request: Any, failure: JobFailed) -> None:
    """Postpone a failed job and raise `Ignore`, unless this failure is its answer.

    Raises:
        Ignore: the job runs again later.
    """
    failed = failed_attempts(request) + 1
    if not failure.retryable or failed > getattr(request, RETRIES_HEADER, 0):
        return
    pause = pause_s(failed)
    now_s = worker.delivery.clock.now_s()
    if request.expires and now_s + pause >= datetime.fromisoformat(request.expires).timestamp():
        return
    setattr(request, FAILED_ATTEMPTS, failed)
    # If this process dies before the message is postponed, the next worker still knows of this attempt.
    worker.answers.store_result(request.id, failure, RETRY, request=request)
    try:
        worker.delivery.postpone_for(request.properties["delivery_tag"], pause)
    except RedisError as error:
        logger.warning(
            "could not postpone job %s for a retry (%s), so the error of its last attempt is its answer",
            named(request),
            describe(error),
        )
        setattr(request, FAILED_ATTEMPTS, failed - 1)
        return
    logger.info("job %s runs again in %.0f s, after attempt %d failed", named(request), pause, failed)
    raise Ignore from None
