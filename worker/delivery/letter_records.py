"""Builds the records of dead letters, and the arguments with which scripts store them.

A record identifies the job and never holds its content: no URL, no label, no part of a body.
`producer.operations.dead_letters` reads the records.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

from worker.delivery.names import DeliveryKeys

#: Above this many dead letters, far more than an operator reads, scripts remove the oldest, except those of
#: unanswerable jobs. With messages of ordinary size, this many take a few megabytes.
MAX_LETTERS: Final = 1_000


def malformed_record(
    job_id: str | None = None, task: str | None = None, *, size_bytes: int | None = None
) -> dict[str, Any]:
    """Return the record of a message that cannot become a task; without a size, the script fills it in."""
    size = {} if size_bytes is None else {"bytes": size_bytes}
    return {"id": job_id, "task": task, "code": "malformed", "deaths": 0, **size}


def put_back_arguments() -> tuple[str, int]:
    """Return the arguments with which a requeuing script makes a message of an unknown queue a dead letter."""
    return _written(malformed_record()), MAX_LETTERS


def arguments(
    keys: DeliveryKeys, tag: str, about: dict[str, Any], *, apart: str, then: Literal["acknowledge", "forget"]
) -> Sequence[Any]:
    """Return the number of keys, the keys and the arguments for a call of the script `BURY`.

    Args:
        about: the record, without the fields that the script fills in.
        apart: a string that distinguishes several letters of one message.
        then: ``acknowledge`` if the caller will acknowledge the message, ``forget`` if the script must delete it.
    """
    names = (keys.in_flight, keys.in_hand, keys.dead_letters, keys.dead_letter_messages)
    return (len(names), *names, tag, _written(about), MAX_LETTERS, apart, then, keys.worker)


def _written(about: dict[str, Any]) -> str:
    return json.dumps({**about, "at": datetime.now(UTC).isoformat(timespec="seconds")})
