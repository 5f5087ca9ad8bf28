"""The scripts that move messages, called as a worker calls them."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import redis

from producer.contract.names import rung_name, taken_name
from worker.delivery import moves
from worker.delivery.broker_clock import BrokerClock
from worker.delivery.envelope import MAX_MESSAGE_BYTES
from worker.delivery.lease import Lease
from worker.delivery.letter_records import put_back_arguments
from worker.delivery.moves import RECLAIMED, RECLAIMED_BYTES
from worker.delivery.names import DeliveryKeys
from worker.delivery.scripts import RECLAIM, RESUME, TAKE
from worker.delivery.times import Times

QUEUE = "nameshot.default"
OURS = DeliveryKeys("nameshot", "us/n1")
#: A time in the year 2286, in seconds since the epoch.
FAR_AHEAD_S = 10_000_000_000


def take(broker: redis.Redis, tag: str, queues: tuple[str, ...] = (QUEUE,), keys: DeliveryKeys = OURS) -> Any:
    names = (*queues, *map(rung_name, queues), *map(taken_name, queues))
    names += (keys.lease, keys.in_flight, keys.suspects, keys.in_hand, keys.workers)
    return broker.eval(TAKE, len(names), *names, tag, MAX_MESSAGE_BYTES, len(queues), keys.worker)


def acknowledge(broker: redis.Redis, tag: str | bytes, keys: DeliveryKeys = OURS) -> Any:
    return moves.acknowledge(broker, keys, tag)


def give_back(broker: redis.Redis, tag: str | bytes, keys: DeliveryKeys = OURS) -> Any:
    return moves.give_back(broker, keys, tag)


def postpone(broker: redis.Redis, tag: str | bytes, until_s: float, keys: DeliveryKeys = OURS) -> Any:
    return moves.postpone(broker, keys, tag, until_s)


def resume(broker: redis.Redis) -> int:
    return moves.resume(broker, OURS)


def resume_a_part(broker: redis.Redis) -> int:
    """Run the script that requeues postponed messages once; return how many it requeued."""
    names = (OURS.postponed, *OURS.put_back)
    return int(broker.eval(RESUME, len(names), *names, *put_back_arguments(), 0)[0])


def reclaim(broker: redis.Redis, how: Literal["dead", "gone", "leaving"], keys: DeliveryKeys = OURS) -> int:
    if how == "dead":
        broker.delete(keys.lease)  # as if it had expired
    return moves.reclaim(broker, keys, how)


def reclaim_a_part(broker: redis.Redis, how: str, keys: DeliveryKeys = OURS, most: int = RECLAIMED) -> tuple[int, int]:
    """Run the script once; return how many messages it requeued, and how many are left."""
    names = (keys.in_flight, *keys.put_back, keys.lease, keys.workers, keys.alone, keys.suspects)
    arguments = (keys.worker, how, 60, *put_back_arguments(), most, RECLAIMED_BYTES, 0)
    moved, _, left, _ = broker.eval(RECLAIM, len(names), *names, *arguments)
    return moved, left


def a_lease(broker: redis.Redis, times: Times | None = None) -> Lease:
    """Return a lease of the worker `OURS`; the test fails if the lease reports that it cannot be renewed."""
    return Lease(
        broker,
        OURS,
        unhealthy_reason=lambda: None,
        warning=lambda: None,
        on_stuck=pytest.fail,
        on_broker_unreachable=lambda: pytest.fail("the lease is not renewed"),
        times=times or Times(),
        clock=BrokerClock(),
    )
