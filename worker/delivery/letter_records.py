"""The records of dead letters, and the arguments with which scripts store them.

A record identifies the job and never holds its content: no URL, no label, no part of a body.
`producer.operations.dead_letters` reads it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

from worker.delivery.names import DeliveryKeys

#: This is far more than an operator reads, and takes a few megabytes with messages of ordinary size.
MAX_LETTERS: Final = 1_000


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
