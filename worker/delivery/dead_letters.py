"""Keeps messages that were given up: a redacted record for people, and the message itself for a replay.

A record identifies the job and never holds its content: no URL, no label, no part of a body.
`producer.operations.dead_letters` reads both.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

import redis

from worker.delivery.names import DeliveryKeys
from worker.delivery.scripts import BURY

logger = logging.getLogger(__name__)

#: This is far more than an operator reads, and takes a few megabytes with messages of ordinary size.
MAX_LETTERS: Final = 1_000


class DeadLetters:
    """Stores messages that this worker holds as dead letters.

    Args:
        client: a Redis client for the broker's database.
        keys: the key names, including this worker's.
    """

    def __init__(self, client: Any, keys: DeliveryKeys) -> None:
        self._client = client
        self._keys = keys

    def poisoned(self, tag: str, *, job_id: str, task: str, deaths: int, image: int | None = None) -> None:
        """Store a job that killed workers, or one image of it; repeated calls store it only once.

        Args:
            tag: the delivery tag.
            image: the index of the image in a bulk job; None for the whole job.
        """
        about = {"id": job_id, "task": task, "code": "poisoned", "deaths": deaths}
        try:
            if image is None:
                self._bury(tag, about, apart="")
            else:
                self._bury(tag, {**about, "image": image}, apart=str(image))
        except redis.RedisError as error:  # the job's answer matters more than its dead letter
            logger.warning("could not store a poisoned message as a dead letter: %s", type(error).__name__)

    def malformed(self, tag: str, *, job_id: str | None, task: str | None) -> None:
        """Store a message that cannot become a task; raises `RedisError`."""
        self._bury(tag, malformed_record(job_id, task), apart=tag)

    def unanswerable(self, tag: str, *, job_id: str, task: str) -> None:
        """Store a job whose answer cannot be stored; raises `RedisError`."""
        self._bury(tag, {"id": job_id, "task": task, "code": "unanswerable", "deaths": 0}, apart="")

    def _bury(self, tag: str, about: dict[str, Any], *, apart: str) -> None:
        self._client.eval(BURY, *arguments(self._keys, tag, about, apart=apart, then="acknowledge"))


def malformed_record(
    job_id: str | None = None, task: str | None = None, *, size_bytes: int | None = None
) -> dict[str, Any]:
    """Return the record of a message that cannot become a task; the script fills in a size that is not given."""
    size = {} if size_bytes is None else {"bytes": size_bytes}
    return {"id": job_id, "task": task, "code": "malformed", "deaths": 0, **size}


def put_back_arguments() -> tuple[str, int]:
    """Return the arguments with which a requeuing script stores a record of an unknown queue as a dead letter."""
    return _written(malformed_record()), MAX_LETTERS


def arguments(
    keys: DeliveryKeys, tag: str, about: dict[str, Any], *, apart: str, then: Literal["acknowledge", "forget"]
) -> Sequence[Any]:
    """Return the number of keys, the keys and the arguments for a call of the script `BURY`.

    Args:
        about: the record, without the fields that the script fills in.
        apart: a string that distinguishes several letters of one message.
        then: whether the caller acknowledges the message, or the script forgets it.
    """
    names = (keys.in_flight, keys.in_hand, keys.dead_letters, keys.dead_letter_messages)
    return (len(names), *names, tag, _written(about), MAX_LETTERS, apart, then, keys.worker)


def _written(about: dict[str, Any]) -> str:
    return json.dumps({**about, "at": datetime.now(UTC).isoformat(timespec="seconds")})
