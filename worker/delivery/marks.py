"""Records in Redis which job to blame if this worker dies: one that runs alone or hangs, or during shutdown none.

Other workers read this mark once the lease has expired; see `worker.delivery.scripts.RECLAIM`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import redis

from worker.delivery.names import DeliveryKeys, field_of
from worker.delivery.upkeep_scripts import SET

logger = logging.getLogger(__name__)

#: A mark that its worker could not delete must not blame a job forever. An hour is longer than any stage runs, and
#: longer than a dead worker's messages wait to be reclaimed.
MARK_S: Final = 3_600
#: No drain lasts longer than a day (`worker.settings.MAX_SECONDS`).
DRAIN_S: Final = 86_400
#: While Redis is unreachable, a thread retries at this interval. The stage that runs alone does not wait for the retry,
#: since that stage blocks other jobs.
PAUSE_S: Final = 1.0
#: The mark of a worker that shuts down while no suspect runs alone. A job's mark never begins with a space, so this
#: mark matches no job, and the worker's death counts against none.
DRAINING: Final = " draining"


class Marks:
    """Maintains this worker's mark. Thread-safe. While Redis is unreachable, jobs continue and a thread retries.

    Args:
        client: a Redis client for the broker's database, with short timeouts, since jobs wait for its calls.
        keys: the key names, including this worker's.
    """

    def __init__(self, client: Any, keys: DeliveryKeys) -> None:
        self._client = client
        self._key = keys.alone
        self._lock = threading.Lock()
        self._written: str | None = None
        self._suspect: str | None = None
        self._is_draining = False
        self._is_retrying = False
        self._is_closed = False

    @contextmanager
    def alone(self, mark: str) -> Iterator[None]:
        """Mark, within this context, the job or image whose stage runs alone."""
        self._set_suspect(mark)
        try:
            yield
        finally:
            self._set_suspect(None)

    def drain(self) -> None:
        """Mark this worker as shutting down: from now on its death counts only against a job that runs alone."""
        with self._lock:
            self._is_draining = True
            self._write()

    def blame(self, job_id: str) -> None:
        """Mark this job as the cause of this worker's death, and write no other mark afterwards."""
        with self._lock:
            self._suspect = field_of(job_id)
            self._is_retrying = False  # the process is about to end, so write at once instead of waiting for the thread
            self._write()
            self._is_closed = True

    def close(self) -> None:
        """Stop writing marks, since the worker's messages are being requeued, and its mark is deleted with them."""
        with self._lock:
            self._is_closed = True

    def _set_suspect(self, suspect: str | None) -> None:
        with self._lock:
            self._suspect = suspect
            self._write()

    @property
    def _wanted(self) -> str | None:
        return self._suspect or (DRAINING if self._is_draining else None)

    def _write(self) -> None:
        """Write the mark to Redis if it has changed. The caller holds the lock."""
        if self._is_closed or self._is_retrying or self._wanted == self._written:
            return
        try:
            self._send()
        except redis.RedisError as error:
            logger.warning("could not record in Redis which job runs alone (%s): retrying", type(error).__name__)
            with suppress(RuntimeError):  # if no thread can start, the next change is written at once
                threading.Thread(target=self._try_again, name="marks", daemon=True).start()
                self._is_retrying = True  # the thread waits for the lock before it reads this

    def _send(self) -> None:
        mark = self._wanted
        if mark is None:
            self._client.delete(self._key)
        else:
            ttl_s = MARK_S if self._suspect else DRAIN_S
            self._client.eval(SET, 1, self._key, mark, ttl_s * 1000)
        self._written = mark

    def _try_again(self) -> None:
        """Retry until Redis holds the mark that is current by then."""
        pause = threading.Event()
        while not pause.wait(PAUSE_S):
            with self._lock, suppress(redis.RedisError):
                if not self._is_closed:
                    self._send()
                self._is_retrying = False
                return
