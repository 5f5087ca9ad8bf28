"""A null worker whose job "suspect" is cancelled as soon as the worker has checked that the job has no answer."""

from __future__ import annotations

from typing import Any

from tests.chaos.null_worker import app
from worker.jobs.results import FirstAnswerBackend
from worker.jobs.running_worker import worker_of

__all__ = ["app"]

_begin = FirstAnswerBackend.begin


def _begin_and_be_cancelled(self: FirstAnswerBackend, job_id: str, request: Any) -> bool:
    begun = _begin(self, job_id, request)
    if job_id == "suspect":
        worker_of(app).jobs.cancel(job_id)
    return begun


FirstAnswerBackend.begin = _begin_and_be_cancelled  # type: ignore[method-assign]  # Celery makes the backend: no subclass
