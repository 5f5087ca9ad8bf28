"""Stores messages that workers gave up on: a redacted record for operators, and the message itself for a replay."""

from __future__ import annotations

import logging
from typing import Any, Final

import redis

from worker.delivery.letter_records import arguments, malformed_record
from worker.delivery.moves import postpone_for
from worker.delivery.names import DeliveryKeys
from worker.delivery.outages import Outage, describe
from worker.delivery.scripts import BURY

logger = logging.getLogger(__name__)

#: If Redis accepts neither a job's answer nor its dead letter, the job runs again after this long.
TRY_AGAIN_S: Final = 60.0


class DeadLetters:
    """Stores, as dead letters, messages that this worker holds.

    Args:
        client: a Redis client for the broker's database.
        keys: the key names, including this worker's.
    """

    def __init__(self, client: Any, keys: DeliveryKeys) -> None:
        self._client = client
        self._keys = keys
        self._broker = Outage("the broker", "does not take dead letters", lambda: client.hdel(keys.in_flight, ""))

    def poisoned(self, tag: str, *, job_id: str, task: str, deaths: int, image: int | None = None) -> None:
        """Store a job that killed workers, or one image of it; repeated calls store it only once.

        Args:
            tag: the delivery tag.
            image: the index of the image in a bulk job; None for the whole job.
        """
        about = {"id": job_id, "task": task, "code": "poisoned", "deaths": deaths}
        which = {} if image is None else {"image": image}
        try:
            self._bury(tag, about | which, apart="" if image is None else str(image))
        except redis.RedisError as error:  # even without a dead letter, the job must get its answer
            logger.warning("could not store a poisoned message as a dead letter: %s", describe(error))

    def malformed(self, tag: str, *, job_id: str | None, task: str | None) -> None:
        """Store a message that cannot become a task; while the broker is down, wait for it.

        Raises:
            RedisError: the broker is up, but refuses the dead letter.
        """
        self._broker.outlast(lambda: self._bury(tag, malformed_record(job_id, task), apart=tag))

    def unanswerable(self, tag: str, *, job_id: str, task: str) -> None:
        """Store a job whose answer cannot be stored, or else postpone it; while the broker is down, wait for it.

        Raises:
            RedisError: the broker is up, but refuses both to store and to postpone the job.
        """
        about = {"id": job_id, "task": task, "code": "unanswerable", "deaths": 0}
        try:
            self._broker.outlast(lambda: self._bury(tag, about, apart=""))
        except redis.RedisError as error:
            logger.error(
                "could not store job %s as a dead letter: %s; it runs again in %.0f s",
                job_id,
                describe(error),
                TRY_AGAIN_S,
            )
            self._broker.outlast(lambda: postpone_for(self._client, self._keys, tag, TRY_AGAIN_S))

    def _bury(self, tag: str, about: dict[str, Any], *, apart: str) -> None:
        self._client.eval(BURY, *arguments(self._keys, tag, about, apart=apart, then="acknowledge"))
