"""What a worker says of its own death, should it come now: which suspect runs alone, or that it is leaving.

It says so in Redis, where others find it once the lease has ended; see `worker.delivery.scripts.RECLAIM`.
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

#: Longer than any stage runs, and than a dead worker waits for its successor: a mark that its writer could not take
#: away must not blame a job for ever.
MARK_S: Final = 3_600
#: A day, which no drain outlasts (`worker.settings.MAX_SECONDS`).
DRAIN_S: Final = 86_400
#: Between tries while Redis is away: a stage that runs alone holds others up, and must not wait for it.
PAUSE_S: Final = 1.0
#: Stands while no suspect runs alone in a worker that was told to end. It names no job, so its death blames none.
#: Neither does any mark begin with a blank.
DRAINING: Final = " draining"


class Marks:
    """This worker's mark. Thread-safe; without Redis work goes on, and what is to be said is said once it is back.

    Args:
        client: a redis client on the broker's database, whose time-outs are short: work waits for it.
        keys: names, this worker's among them.
    """

    def __init__(self, client: Any, keys: DeliveryKeys) -> None:
        self._client = client
        self._key = keys.alone
        self._lock = threading.Lock()
        self._stands: str | None = None
        self._suspect: str | None = None
        self._is_draining = False
        self._is_away = False
        self._is_closed = False

    @contextmanager
    def alone(self, mark: str) -> Iterator[None]:
        """Meanwhile nothing but this runs that could end the process."""
        self._say(suspect=mark)
        try:
            yield
        finally:
            self._say(suspect=None)

    def drain(self) -> None:
        """From now on this worker's death blames no job but one that runs alone."""
        with self._lock:
            self._is_draining = True
            self._write()

    def blame(self, job_id: str) -> None:
        """This worker ends now, and this job is what ended it; nothing else is said any more."""
        with self._lock:
            self._suspect = field_of(job_id)
            self._is_away = False  # the last chance
            self._write()
            self._is_closed = True

    def close(self) -> None:
        """Say nothing any more: what the worker held has gone back, or is about to, and the mark with it."""
        with self._lock:
            self._is_closed = True

    def _say(self, *, suspect: str | None) -> None:
        with self._lock:
            self._suspect = suspect
            self._write()

    @property
    def _says(self) -> str | None:
        return self._suspect or (DRAINING if self._is_draining else None)

    def _write(self) -> None:
        """Have Redis say what is so; with the lock held."""
        if self._is_closed or self._is_away or self._says == self._stands:
            return
        try:
            self._send()
        except redis.RedisError as error:
            logger.warning("could not tell Redis what runs alone (%s): trying again", type(error).__name__)
            self._is_away = True
            threading.Thread(target=self._try_again, name="marks", daemon=True).start()

    def _send(self) -> None:
        says = self._says
        if says is None:
            self._client.delete(self._key)
        else:
            life_s = MARK_S if self._suspect else DRAIN_S
            self._client.eval(SET, 1, self._key, says, life_s * 1000)
        self._stands = says

    def _try_again(self) -> None:
        """Until Redis says what is so then."""
        pause = threading.Event()
        while not pause.wait(PAUSE_S):
            with self._lock, suppress(redis.RedisError):
                if not self._is_closed:
                    self._send()
                self._is_away = False
                return
