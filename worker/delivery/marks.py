"""Records in Redis which job to blame if this worker dies now: the suspect that runs alone, or none during shutdown.

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

#: A mark that its worker could not delete must not blame a job forever. An hour is longer than any stage runs, and than
#: the messages of a dead worker wait to be reclaimed.
MARK_S: Final = 3_600
#: No drain lasts longer than a day (`worker.settings.MAX_SECONDS`).
DRAIN_S: Final = 86_400
#: A thread retries at this interval while Redis is away; the stage that runs alone does not wait, since it blocks
#: other jobs.
PAUSE_S: Final = 1.0
#: This mark stands while a worker shuts down and no suspect runs alone. A mark with a job never begins with a space, so
#: the worker's death counts against no job.
DRAINING: Final = " draining"


class Marks:
    """Maintains this worker's mark. Thread-safe; while Redis is away work goes on, and a thread retries the write.

    Args:
        client: a Redis client for the broker's database with short timeouts, since work waits for it.
        keys: the key names, including this worker's.
    """

    def __init__(self, client: Any, keys: DeliveryKeys) -> None:
        self._client = client
        self._key = keys.alone
        self._lock = threading.Lock()
        self._written: str | None = None
        self._suspect: str | None = None
        self._is_draining = False
        self._is_away = False
        self._is_closed = False

    @contextmanager
    def alone(self, mark: str) -> Iterator[None]:
        """Mark, within this context, the only stage that runs and could end the process."""
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
        """Mark this job as the cause of this worker's death, and keep that mark."""
        with self._lock:
            self._suspect = field_of(job_id)
            self._is_away = False  # the process is about to end, so try once more
            self._write()
            self._is_closed = True

    def close(self) -> None:
        """Stop writing marks: the worker's messages, and its mark with them, are or will be reclaimed."""
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
        if self._is_closed or self._is_away or self._wanted == self._written:
            return
        try:
            self._send()
        except redis.RedisError as error:
            logger.warning("could not write to Redis what runs alone (%s): retrying", type(error).__name__)
            self._is_away = True
            threading.Thread(target=self._try_again, name="marks", daemon=True).start()

    def _send(self) -> None:
        mark = self._wanted
        if mark is None:
            self._client.delete(self._key)
        else:
            life_s = MARK_S if self._suspect else DRAIN_S
            self._client.eval(SET, 1, self._key, mark, life_s * 1000)
        self._written = mark

    def _try_again(self) -> None:
        """Retry until Redis has the mark that is wanted at that time."""
        pause = threading.Event()
        while not pause.wait(PAUSE_S):
            with self._lock, suppress(redis.RedisError):
                if not self._is_closed:
                    self._send()
                self._is_away = False
                return
