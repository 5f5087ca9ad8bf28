"""The scripts that move messages, called as a worker calls them."""

from __future__ import annotations

from typing import Any

import redis

from producer.contract import rung_name, taken_name
from worker.delivery import held
from worker.delivery.dead_letters import put_back_arguments
from worker.delivery.envelope import MAX_MESSAGE_BYTES
from worker.delivery.lease import RECLAIMED, RECLAIMED_BYTES
from worker.delivery.names import DeliveryKeys
from worker.delivery.scripts import POSTPONE, RECLAIM, RESUME, TAKE

QUEUE = "nameshot.default"
OURS = DeliveryKeys("nameshot", "us/n1")


def take(broker: redis.Redis, tag: str, queues: tuple[str, ...] = (QUEUE,), keys: DeliveryKeys = OURS) -> Any:
    names = (*queues, *map(rung_name, queues), *map(taken_name, queues))
    names += (keys.lease, keys.in_flight, keys.suspects, keys.in_hand, keys.workers)
    return broker.eval(TAKE, len(names), *names, tag, MAX_MESSAGE_BYTES, len(queues), keys.worker)


def acknowledge(broker: redis.Redis, tag: str | bytes, keys: DeliveryKeys = OURS) -> Any:
    return held.acknowledge(broker, keys, tag)


def give_back(broker: redis.Redis, tag: str | bytes, keys: DeliveryKeys = OURS) -> Any:
    return held.give_back(broker, keys, tag)


def postpone(broker: redis.Redis, tag: str | bytes, until_s: float, keys: DeliveryKeys = OURS) -> Any:
    return broker.eval(POSTPONE, 3, keys.in_flight, keys.in_hand, keys.postponed, tag, until_s)


def resume(broker: redis.Redis, now_s: float) -> Any:
    names = (OURS.postponed, *OURS.put_back)
    return broker.eval(RESUME, len(names), *names, now_s, *put_back_arguments())


def reclaim(broker: redis.Redis, how: str, keys: DeliveryKeys = OURS) -> Any:
    if how == "dead":
        broker.delete(keys.lease)  # as its time does
    return reclaim_as_found(broker, how, keys)


def reclaim_as_found(broker: redis.Redis, how: str, keys: DeliveryKeys = OURS) -> int:
    """All of it; -1 when the worker lives."""
    total, left = 0, 1
    while left:
        moved, left = reclaim_a_part(broker, how, keys)
        total += moved
    return total


def reclaim_a_part(broker: redis.Redis, how: str, keys: DeliveryKeys = OURS, most: int = RECLAIMED) -> tuple[int, int]:
    """How many messages went back, and how many are left."""
    names = (keys.in_flight, *keys.put_back, keys.lease, keys.workers, keys.alone, keys.suspects)
    arguments = (keys.worker, how, 60, *put_back_arguments(), most, RECLAIMED_BYTES)
    moved, left = broker.eval(RECLAIM, len(names), *names, *arguments)
    return moved, left
