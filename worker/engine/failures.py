"""What an error that came out of a batch means: for other batches, and for the job that was in it."""

from __future__ import annotations

import logging

from producer.errors import JobFailed
from worker.engine.batcher import BatcherClosed, Verdict
from worker.model.interface import DeviceLostError, ModelOutOfMemoryError
from worker.runtime.logs import place_of

logger = logging.getLogger(__name__)


def judge(error: BaseException) -> Verdict:
    """What it says of other batches."""
    if isinstance(error, DeviceLostError):
        return "final"
    return "out of memory" if isinstance(error, ModelOutOfMemoryError | MemoryError) else "one item's fault"


def failure_of(error: BaseException, subject: str) -> JobFailed:
    """What a job is told of it.

    Args:
        subject: how its message names what was in the batch.
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
    """The failure of an image whose turn did not come in time."""
    return JobFailed("deadline_exceeded", "the device did not get to this image within the job's time.")
