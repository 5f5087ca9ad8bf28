"""Translates a batch's error into a verdict on later batches and a job's failure, and a failed start into a status."""

from __future__ import annotations

import logging
import os
from concurrent.futures import CancelledError, Future
from typing import Final, TypeVar

from producer.errors import JobFailed, NameshotError
from worker.concurrency.cancel_scope import Cancelled, CancelScope
from worker.engine.batch_queue import Verdict
from worker.engine.batcher import BatcherClosed
from worker.model.interface import DeviceLostError, ModelError, ModelOutOfMemoryError
from worker.runtime.logs import place_of

logger = logging.getLogger(__name__)

T = TypeVar("T")

TOO_LATE: Final = "the device could not process this image within the job's time."


def verdict_on(error: BaseException) -> Verdict:
    """Return what an error of one batch means for further batches."""
    if isinstance(error, DeviceLostError):
        return "final"
    return "out of memory" if isinstance(error, ModelOutOfMemoryError | MemoryError) else "one item's fault"


def failure_of(error: BaseException, subject: str) -> JobFailed:
    """Return the job's failure for an error that a batch raised.

    Args:
        subject: names the item in the message, such as "this image".
    """
    if isinstance(error, JobFailed):
        return error
    if isinstance(error, BatcherClosed):
        return JobFailed("deadline_exceeded", "the worker is shutting down.")
    verdict = verdict_on(error)
    if verdict == "final":
        # No code says that a device was lost; of those that invite a retry, `out_of_memory` is the nearest.
        return JobFailed("out_of_memory", "the device failed, so its process ends; try again.")
    if verdict == "out of memory":
        return JobFailed("out_of_memory", f"the device ran out of memory even with {subject} alone in a batch.")
    cause = error.__cause__ or error
    logger.error("the model failed on %s with %s at %s", subject, type(cause).__name__, place_of(cause))
    # The text of such an error is this project's own, and holds neither a label nor a URL.
    reason = f": {error}" if type(error) is ModelError else ""
    return JobFailed("model_error", f"the model could not process {subject}{reason}.")


def result_within(future: Future[T], scope: CancelScope, too_late: str = TOO_LATE) -> T:
    """Return the result of work that was queued for a job; cancel the work once the scope has ended.

    Args:
        too_late: the error message if the deadline passes first; the default suits an image.

    Raises:
        JobFailed: ``deadline_exceeded``.
        Exception: what the work raised; `failure_of` translates it.
        Cancelled: the scope was cancelled; if the work's batch already runs, it continues.
    """
    # The cancelling thread itself cancels the future, because the next batch may start before this thread wakes.
    scope.on_cancel(future.cancel)
    try:
        return scope.result_of(future)
    except (Cancelled, CancelledError):
        raise Cancelled from None
    except TimeoutError as error:
        if not future.cancel() and future.done() and future.exception() is error:
            raise  # the work itself raised it
        raise JobFailed("deadline_exceeded", too_late) from None


def failed_start(error: Exception, process: str) -> int:
    """Log why a process cannot start and return its exit status: 78 if no restart can help, 70 otherwise.

    Args:
        process: the process's name in the message, such as "worker".
    """
    if isinstance(error, NameshotError | ModelError):
        logger.critical("%s", error)
        return os.EX_SOFTWARE if isinstance(error, DeviceLostError) else os.EX_CONFIG
    logger.critical("this %s cannot start: %s at %s", process, type(error).__name__, place_of(error))
    return os.EX_SOFTWARE
