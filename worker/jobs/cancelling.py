"""Tracks the running jobs of this process, and stops those that a client cancels or revokes.

The client that cancels a job also stores the job's answer. The worker only stops the work, which frees the job's place
for another job, so a missed cancellation wastes work and does no other harm. If a client revokes a job, a worker stores
the answer.
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

#: After this much silence the listener pings the broker, which then has the same time to reply.
SILENCE_S: Final = 5.0
#: The listener pauses for this long after a failure, so that it does not reconnect in a tight loop.
PAUSE_S: Final = 1.0


class RunningJobs:
    """The scopes of the jobs that run in this process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: A job has two scopes if this worker received its message a second time while the first run lasts.
        self._scopes: defaultdict[str, set[CancelScope]] = defaultdict(set)

    @contextmanager
    def job(self, job_id: str, scope: CancelScope) -> Iterator[None]:
        """Register a job as running within this context, so that `cancel` can cancel its scope."""
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
        """Cancel a job's scopes; do nothing if the job does not run in this process.

        Args:
            is_cancelled: returns whether the stored answer of a job is a cancellation. Pass this function for a
                published id: before the id arrives, a client may have freed it and submitted another job under it.
        """
        with self._lock:
            # Read before `is_cancelled` is called, because another job with this id may begin in the meantime.
            scopes = tuple(self._scopes.get(job_id, ()))
        if scopes and is_cancelled(job_id):
            for scope in scopes:
                scope.cancel()

    def overdue(self, grace_s: float) -> list[str]:
        """Return the ids of jobs that still run `grace_s` seconds after their deadline."""
        latest_s = time.monotonic() - grace_s
        with self._lock:
            return [job_id for job_id, scopes in self._scopes.items() if any(s.deadline_s < latest_s for s in scopes)]


class CancelListener:
    """Receives the ids of cancelled jobs in a thread that reconnects after each failure.

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
        """Have the thread end within seconds; do not wait for it."""
        self._closed.set()

    def _serve(self) -> None:
        failing = False
        while not self._closed.is_set():
            try:
                with self._client.pubsub(ignore_subscribe_messages=True) as subscription:
                    subscription.subscribe(self._channel)
                    failing = False
                    self._listen(subscription)
            except Exception as error:  # this thread must continue while the broker is unreachable
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

    A thread of its own does this, because Redis may be unreachable and the event loop must not wait. Celery's
    implementation does not suit us. Celery makes every online worker remember a revoked id and discard even jobs sent
    later under that id. Celery answers a job only if no worker has begun it, and stops a running job by killing its
    process, which would kill every job of a thread pool.

    Args:
        answers: stores the answers.
        jobs: the jobs that run in this process.
        announce: publishes the id of a job that is now answered as revoked, so that other workers stop the job.
    """

    def __init__(self, answers: FirstAnswerBackend, jobs: RunningJobs, announce: Callable[[str], object]) -> None:
        self._answers = answers
        self._jobs = jobs
        self._announce = announce
        self._to_revoke: SimpleQueue[str] = SimpleQueue()
        threading.Thread(target=self._serve, name="revoking", daemon=True).start()

    def revoke(self, job_ids: Sequence[str]) -> None:
        """Have the thread answer and stop these jobs."""
        for job_id in job_ids:
            self._to_revoke.put(job_id)

    def _serve(self) -> None:
        while True:
            job_id = self._to_revoke.get()
            try:
                if self._answers.revoke(job_id):
                    logger.info("job %s was revoked", job_id)
                    self._announce(job_id)
                self._jobs.cancel(job_id)
            except Exception as error:  # this thread must continue after any failure
                logger.warning("could not revoke job %s: %s", job_id, type(error).__name__)
