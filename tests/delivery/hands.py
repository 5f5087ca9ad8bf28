"""A worker's hands: messages that are held as `TAKE` records them, and given up."""

from __future__ import annotations

from itertools import count

import redis

from worker.delivery.dead_letters import DeadLetters
from worker.delivery.names import DeliveryKeys

KEYS = DeliveryKeys("nameshot", "a-worker")
_tags = count()


def hold(broker: redis.Redis, raw: bytes, queue: str = "nameshot.default") -> str:
    """Have a message in hand; returns its delivery tag."""
    tag = f"tag-{next(_tags)}"
    broker.hset(KEYS.in_flight, tag, queue.encode() + b"\n" + raw)
    return tag


def give_up(broker: redis.Redis, job_id: str, raw: bytes | None = None, image: int | None = None) -> bytes:
    """Find a job to be poison, taken from its queue where its message is not given; returns the message."""
    if raw is None:
        taken = broker.rpop("nameshot.default")
        assert isinstance(taken, bytes)
        raw = taken
    letters = DeadLetters(broker, KEYS)
    letters.poisoned(hold(broker, raw), job_id=job_id, task="nameshot.classify", deaths=3, image=image)
    return raw


def misread(broker: redis.Redis, raw: bytes, tag: str | None = None) -> None:
    """Find a message to be malformed, which is in hand already where its delivery tag is given."""
    DeadLetters(broker, KEYS).malformed(tag or hold(broker, raw), job_id=None, task=None)
