"""What was given up is kept: a redacted record for people, and the message itself for a replay.

A record says which job, never what was asked: no URL, no label, no part of a body. `producer.operations.dead_letters`
reads both.
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

#: Far more than anybody reads, and with messages of ordinary size a few megabytes.
MAX_LETTERS: Final = 1_000


class DeadLetters:
    """Keeps messages that this worker holds and has given up.

    Args:
        client: a redis client on the broker's database.
        keys: names, this worker's among them.
    """

    def __init__(self, client: Any, keys: DeliveryKeys) -> None:
        self._client = client
        self._keys = keys

    def poisoned(self, tag: str, *, job_id: str, task: str, deaths: int, image: int | None = None) -> None:
        """Keep a job that killed workers, or one image of it; once, however often that is found.

        Args:
            tag: of the delivery.
            image: its number in a bulk job.
        """
        about = {"id": job_id, "task": task, "code": "poisoned", "deaths": deaths}
        try:
            if image is None:
                self._bury(tag, about, apart="")
            else:
                self._bury(tag, {**about, "image": image}, apart=str(image))
        except redis.RedisError as error:  # the answer matters more than the letter
            logger.warning("could not keep a poisoned message as a dead letter: %s", type(error).__name__)

    def malformed(self, tag: str, *, job_id: str | None, task: str | None) -> None:
        """Keep a message that no task can be made of; raises `RedisError`."""
        self._bury(tag, malformed_record(job_id, task), apart=tag)

    def unanswerable(self, tag: str, *, job_id: str, task: str) -> None:
        """Keep a job whose answer cannot be stored; raises `RedisError`."""
        self._bury(tag, {"id": job_id, "task": task, "code": "unanswerable", "deaths": 0}, apart="")

    def _bury(self, tag: str, about: dict[str, Any], *, apart: str) -> None:
        self._client.eval(BURY, *arguments(self._keys, tag, about, apart=apart, then="acknowledge"))


def malformed_record(
    job_id: str | None = None, task: str | None = None, *, size_bytes: int | None = None
) -> dict[str, Any]:
    """The record of a message that no task can be made of; the script measures it where its size is not given."""
    size = {} if size_bytes is None else {"bytes": size_bytes}
    return {"id": job_id, "task": task, "code": "malformed", "deaths": 0, **size}


def put_back_arguments() -> tuple[str, int]:
    """What scripts take that put messages back, should a record name a list that is none of ours."""
    return _written(malformed_record()), MAX_LETTERS


def arguments(
    keys: DeliveryKeys, tag: str, about: dict[str, Any], *, apart: str, then: Literal["acknowledge", "forget"]
) -> Sequence[Any]:
    """What follows the script `BURY` in a call of it.

    Args:
        about: the record, but for what the script finds out.
        apart: two letters of one message differ in this.
        then: whether the caller acknowledges the message, or the script forgets it.
    """
    names = (keys.in_flight, keys.in_hand, keys.dead_letters, keys.dead_letter_messages)
    return (len(names), *names, tag, _written(about), MAX_LETTERS, apart, then, keys.worker)


def _written(about: dict[str, Any]) -> str:
    return json.dumps({**about, "at": datetime.now(UTC).isoformat(timespec="seconds")})
