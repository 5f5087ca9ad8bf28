"""Tracks the running jobs of this process, and stops those that a client cancels or revokes.

The client that cancels a job also writes its answer. This process only stops the work, which frees its place for
another job; a missed cancellation wastes that work and does no other harm. A worker writes the answer of a revoked job.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, Final

import redis

from worker.concurrency.cancel_scope import CancelScope
from worker.jobs.results import FirstAnswerBackend

logger = logging.getLogger(__name__)

#: After this much silence the listener pings the server, which then has the same time to reply.
SILENCE_S: Final = 5.0
#: The listener pauses for this long after a failure, so that it does not reconnect in a tight loop.
PAUSE_S: Final = 1.0


class RunningJobs:
    """The scopes of the jobs that run in this process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: A job can run twice at once, if its message was delivered to this worker again.
        self._scopes: defaultdict[str, set[CancelScope]] = defaultdict(set)

    @contextmanager
    def job(self, job_id: str, scope: CancelScope) -> Iterator[None]:
        """Register a job as running, so that `cancel` reaches its scope."""
        with self._lock:
            self._scopes[job_id].add(scope)
        try:
            yield
        finally:
            with self._lock:
                self._scopes[job_id].discard(scope)
                if not self._scopes[job_id]:
                    del self._scopes[job_id]

    def cancel(self, job_id: str, is_cancelled: Callable[[str], bool] = lambda _: True) -> None:
        """Cancel a job's scopes; does nothing if the job does not run in this process.

        Args:
            is_cancelled: for an announced cancellation: returns whether a cancellation is the job's answer now. An
                announcement holds only the id, and may arrive late: by then the id may have been freed and sent again.
        """
        with self._lock:
            scopes = tuple(self._scopes.get(job_id, ()))  # before the look at its answer, since it may begin anew
        if scopes and is_cancelled(job_id):
            for scope in scopes:
                scope.cancel()

    def overdue(self, grace_s: float) -> list[str]:
        """Return the ids of jobs that still run `grace_s` seconds after their deadline."""
        latest_s = time.monotonic() - grace_s
        with self._lock:
            return [job_id for job_id, scopes in self._scopes.items() if any(s.deadline_s < latest_s for s in scopes)]


class CancelListener:
    """Receives the ids of cancelled jobs in a thread that reconnects whenever necessary.

    Args:
        client: a Redis client for the broker's database, with timeouts.
        channel: the channel to which clients publish the ids of cancelled jobs.
        on_cancelled: called with each id.
    """

    def __init__(self, client: Any, channel: str, on_cancelled: Callable[[str], None]) -> None:
        self._client = client
        self._channel = channel
        self._on_cancelled = on_cancelled
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="cancelling", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Have the thread end after its current wait."""
        self._closed.set()

    def _serve(self) -> None:
        failing = False
        while not self._closed.is_set():
            try:
                with self._client.pubsub(ignore_subscribe_messages=True) as subscription:
                    subscription.subscribe(self._channel)
                    failing = False
                    self._listen(subscription)
            except Exception as error:  # the broker is away; this thread must keep running
                if not failing:
                    logger.warning("cannot receive cancellations: %s", type(error).__name__)
                failing = True
                self._closed.wait(PAUSE_S)

    def _listen(self, subscription: Any) -> None:
        while not self._closed.is_set():
            message = subscription.get_message(timeout=SILENCE_S)
            if message is None:
                subscription.ping()
                message = subscription.get_message(timeout=SILENCE_S)
            if message is None:
                raise redis.ConnectionError("the broker does not answer")
            if message["type"] == "message":
                self._on_cancelled(message["data"].decode(errors="replace"))


class Revoker:
    """Implements Celery's ``app.control.revoke``: answers a job at once and stops its work.

    It does so in a thread of its own, since Redis may be away and the event loop must not wait. Celery itself keeps a
    revoked id in the memory of each online worker, even for jobs sent under it later; it writes an answer only for a
    job that no worker has begun, and stops a running one by killing its process, which a thread pool cannot do.

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
