"""Jobs that run, and how this process hears that somebody cancels one of them.

A cancelled job's answer is written by whoever cancels it. What is left to do here is to stop the work, so that its
place is free for another job; a cancellation that is not heard costs that work and nothing else.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import redis

from worker.concurrency.cancel_scope import CancelScope

logger = logging.getLogger(__name__)

#: After so much silence the server is asked whether it is still there, and given as long to answer.
SILENCE_S: Final = 5.0
#: After a failure.
PAUSE_S: Final = 1.0


class RunningJobs:
    """The scopes of the jobs that run in this process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: A job can run twice at once, when its message was given to this worker again.
        self._scopes: defaultdict[str, set[CancelScope]] = defaultdict(set)

    @contextmanager
    def job(self, job_id: str, scope: CancelScope) -> Iterator[None]:
        """A job runs within its scope, and can be cancelled."""
        with self._lock:
            self._scopes[job_id].add(scope)
        try:
            yield
        finally:
            with self._lock:
                self._scopes[job_id].discard(scope)
                if not self._scopes[job_id]:
                    del self._scopes[job_id]

    def cancel(self, job_id: str) -> None:
        """Stop a job; nothing happens when it does not run here."""
        with self._lock:
            scopes = tuple(self._scopes.get(job_id, ()))
        for scope in scopes:
            scope.cancel()

    def overdue(self, grace_s: float) -> list[str]:
        """Ids of the jobs that still run so long after their deadline."""
        latest_s = time.monotonic() - grace_s
        with self._lock:
            return [job_id for job_id, scopes in self._scopes.items() if any(s.deadline_s < latest_s for s in scopes)]


class CancelListener:
    """Hears of cancelled jobs in a thread that connects again whenever it has to.

    Args:
        client: a redis client on the broker's database, with timeouts.
        channel: where the ids of cancelled jobs are published.
        on_cancelled: called with each id.
    """

    def __init__(self, client: Any, channel: str, on_cancelled: Callable[[str], None]) -> None:
        self._client = client
        self._channel = channel
        self._on_cancelled = on_cancelled
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="cancelling", daemon=True)

    def start(self) -> None:
        """Listen from now on."""
        self._thread.start()

    def close(self) -> None:
        """Listen no more; the thread ends with its wait."""
        self._closed.set()

    def _serve(self) -> None:
        failing = False
        while not self._closed.is_set():
            try:
                with self._client.pubsub(ignore_subscribe_messages=True) as subscription:
                    subscription.subscribe(self._channel)
                    failing = False
                    self._listen(subscription)
            except Exception as error:  # the broker is away; this thread must go on
                if not failing:
                    logger.warning("cannot hear of cancelled jobs: %s", type(error).__name__)
                failing = True
                self._closed.wait(PAUSE_S)

    def _listen(self, subscription: Any) -> None:
        was_asked = False
        while not self._closed.is_set():
            message = subscription.get_message(timeout=SILENCE_S)
            if message is not None:
                was_asked = False
                if message["type"] == "message":
                    self._on_cancelled(message["data"].decode(errors="replace"))
            elif was_asked:
                raise redis.ConnectionError("the broker does not answer")
            else:
                subscription.ping()
                was_asked = True
