"""Translates a batch's error: into a verdict on other batches, and into the failure of a job."""

from __future__ import annotations

import logging

from producer.errors import JobFailed
from worker.engine.batcher import BatcherClosed, Verdict
from worker.model.interface import DeviceLostError, ModelOutOfMemoryError
from worker.runtime.logs import place_of

logger = logging.getLogger(__name__)


def judge(error: BaseException) -> Verdict:
    """Decide what an error means for other batches."""
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
    verdict = judge(error)
    if verdict == "final":
        return JobFailed("out_of_memory", "the device stopped answering; the worker restarts.")
    if verdict == "out of memory":
        return JobFailed("out_of_memory", f"the device ran out of memory on {subject} alone.")
    cause = error.__cause__ or error
    logger.error("the model failed on %s with %s at %s", subject, type(cause).__name__, place_of(cause))
    return JobFailed("model_error", f"the model could not process {subject}.")


def too_late() -> JobFailed:
    """Return the failure of an image that the device did not get to in time."""
    return JobFailed("deadline_exceeded", "the device did not get to this image within the job's time.")
