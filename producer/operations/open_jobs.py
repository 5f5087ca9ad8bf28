"""The jobs of an API key that may have no answer yet, of which a key may have only so many.

A worker that answers a job does not remove it from the set. Every program that reads the answer does, and so does this
operation once the set is full.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from producer.contract.names import open_key
from producer.operations.exchanges import Call, Operation
from producer.operations.records import look

#: The number of an owner's oldest open jobs that are looked up when the owner has as many as it may have.
LOOKED_UP: Final = 500


def close_answered(prefix: str, owner: str, *, before_ms: int, result_ttl_s: int) -> Operation[None]:
    """Take out of the set of an owner's open jobs the oldest that have an answer, or that do not exist any more.

    Args:
        before_ms: a job that was begun since then may not be queued yet, so it counts although it does not exist.
    """
    key = open_key(prefix, owner)
    oldest = yield Call("results", ("ZRANGE", key, 0, LOOKED_UP - 1, "WITHSCORES"))
    begun_ms = {bytes(job_id).decode(): float(score) for job_id, score in _pairs(oldest)}
    seen = yield from look(prefix, list(begun_ms), result_ttl_s=result_ttl_s)
    gone = [
        job_id
        for job_id, its in seen.items()
        if its.answer.is_settled or (its.answer.state == "unknown" and begun_ms[job_id] < before_ms)
    ]
    if gone:
        yield Call("results", ("ZREM", key, *gone))


def _pairs(reply: Sequence[object]) -> Iterable[tuple[bytes, str | bytes | float]]:
    """Return the members of a sorted set with their scores, in whichever form redis-py has put them."""
    if reply and isinstance(reply[0], list | tuple):
        return [(pair[0], pair[1]) for pair in reply]  # type: ignore[index]  # checked for the first of them
    return list(zip(reply[::2], reply[1::2], strict=True))  # type: ignore[arg-type]  # alternating, as Redis sends them
