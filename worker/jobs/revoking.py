"""Implements Celery's ``app.control.revoke``: the worker writes the job's answer at once and stops its work.

Celery itself keeps a revoked id in the memory of each online worker, even for jobs sent under it later; it writes an
answer only for a job that no worker has begun, and stops a running one by killing its process, which a thread pool
cannot do.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

from celery.utils.functional import maybe_list
from celery.worker.control import Panel

from worker.jobs.messages import is_id

logger = logging.getLogger(__name__)


class Revoker:
    """Answers revoked jobs in a thread of its own, since Redis may be away and the event loop must not wait.

    Args:
        answer: writes the answer of a revoked job; returns False if it has one already.
        announce: publishes the id of a job whose answer was written, so that other workers stop it.
        stop: stops a job that runs in this process.
    """

    def __init__(
        self, *, answer: Callable[[str], bool], announce: Callable[[str], object], stop: Callable[[str], None]
    ) -> None:
        self._answer = answer
        self._announce = announce
        self._stop = stop
        self._revoked: SimpleQueue[str] = SimpleQueue()
        threading.Thread(target=self._serve, name="revoking", daemon=True).start()

    def revoke(self, job_ids: Sequence[str]) -> None:
        """Queue these jobs to be answered and stopped."""
        for job_id in job_ids:
            self._revoked.put(job_id)

    def _serve(self) -> None:
        while True:
            job_id = self._revoked.get()
            try:
                if self._answer(job_id):
                    logger.info("job %s was revoked", job_id)
                    self._announce(job_id)
                self._stop(job_id)
            except Exception as error:  # the thread must keep running
                logger.warning("could not revoke job %s: %s", job_id, type(error).__name__)


def register() -> None:
    """Replace Celery's commands ``revoke`` and ``terminate`` by ours."""
    Panel.register(name="revoke", variadic="task_id", signature="[id1 [id2 [... [idN]]]]")(_revoke)
    Panel.register(
        name="terminate", variadic="task_id", args=[("signal", str)], signature="<signal> [id1 [id2 [... [idN]]]]"
    )(_revoke)


def _revoke(state: Any, task_id: Any = None, **_: Any) -> dict[str, str]:
    """Revoke task by task id (or list of ids); a running one is stopped, with or without terminate."""
    # A text that cannot be a job's id could forge a line in the log.
    job_ids = [job_id for job_id in maybe_list(task_id) or [] if is_id(job_id)]
    state.app.revoker.revoke(job_ids)
    return {"ok": f"tasks {', '.join(job_ids)} flagged as revoked"}
