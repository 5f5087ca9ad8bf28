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

from worker.jobs.cancelling import RunningJobs
from worker.jobs.results import FirstAnswerBackend

logger = logging.getLogger(__name__)


class Revoker:
    """Answers revoked jobs in a thread of its own, since Redis may be away and the event loop must not wait.

    Args:
        answers: stores the answers.
        jobs: the jobs that run in this process.
        announce: publishes the id of a job whose answer was written, so that other workers stop it.
    """

    def __init__(self, answers: FirstAnswerBackend, jobs: RunningJobs, announce: Callable[[str], object]) -> None:
        self._answers = answers
        self._jobs = jobs
        self._announce = announce
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
                if self._answers.revoke(job_id):
                    logger.info("job %s was revoked", job_id)
                    self._announce(job_id)
                self._jobs.cancel(job_id)
            except Exception as error:  # the thread must keep running
                logger.warning("could not revoke job %s: %s", job_id, type(error).__name__)
