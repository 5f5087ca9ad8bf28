"""Holds messages as a worker does, in the form that `TAKE` records, and makes dead letters of them."""

from __future__ import annotations

from itertools import count

import redis

from worker.delivery.dead_letters import DeadLetters
from worker.delivery.names import DeliveryKeys

KEYS = DeliveryKeys("nameshot", "a-worker")
_tags = count()


def hold(broker: redis.Redis, raw: bytes, queue: str = "nameshot.default") -> str:
    """Record a message as in hand, and return its holding tag."""
    tag = f"tag-{next(_tags)}"
    broker.hset(KEYS.in_flight, tag, queue.encode() + b"\n" + raw)
    return tag


def give_up(broker: redis.Redis, job_id: str, raw: bytes | None = None, image: int | None = None) -> bytes:
    """Make a message, by default the next one of the queue, the dead letter of a poisoned job; return the message."""
    if raw is None:
        taken = broker.rpop("nameshot.default")
        assert isinstance(taken, bytes)
        raw = taken
    letters = DeadLetters(broker, KEYS)
    letters.poisoned(hold(broker, raw), job_id=job_id, task="nameshot.classify", deaths=3, image=image)
    return raw


def misread(broker: redis.Redis, raw: bytes, tag: str | None = None) -> None:
    """Make a message the dead letter of a malformed one; with a ``tag``, the message is in hand already."""
    DeadLetters(broker, KEYS).malformed(tag or hold(broker, raw), job_id=None, task=None)
