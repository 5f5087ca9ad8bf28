"""However many messages a worker has to requeue, it renews its lease in time and requeues the rest later."""

from collections.abc import Iterator

import pytest
import redis

from tests.chaos.takers import envelope
from tests.delivery.moves import OURS, QUEUE, a_lease, reclaim, resume
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer
from worker.delivery import moves
from worker.delivery.lease import Lease
from worker.delivery.names import DeliveryKeys
from worker.delivery.times import Times

MANY = 300
DEAD = DeliveryKeys("nameshot", "us/n2")
#: So short that a round has time for only one part of each task.
TIMES = Times(round_s=0.002)


@pytest.fixture
def broker(own_valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with own_valkey.connect() as broker:
        yield broker


@pytest.fixture
def lease(broker: redis.Redis) -> Lease:
    return a_lease(broker, TIMES)


def postpone_many(broker: redis.Redis) -> None:
    broker.zadd("nameshot:postponed", {f"{i:05} job-{i}\n{QUEUE}\n{envelope(f'job-{i}')}": 1 for i in range(MANY)})


def hold_many(broker: redis.Redis, keys: DeliveryKeys) -> None:
    broker.hset(keys.in_flight, mapping={f"{i:05} job-{i}": f"{QUEUE}\n{envelope(f'job-{i}')}" for i in range(MANY)})


def assert_a_round_moves_some_and_the_next_ones_all(broker: redis.Redis, lease: Lease) -> None:
    def one_round() -> int:
        lease.round()
        assert broker.exists(OURS.lease)
        return int(broker.llen(QUEUE))

    eventually(one_round)
    assert broker.llen(QUEUE) <= MANY / 2
    eventually(lambda: one_round() == MANY)


def test_postponed_messages_that_are_due_at_once_are_requeued_in_several_rounds(
    broker: redis.Redis, lease: Lease
) -> None:
    postpone_many(broker)

    assert_a_round_moves_some_and_the_next_ones_all(broker, lease)


def test_a_dead_worker_s_messages_are_requeued_in_several_rounds(broker: redis.Redis, lease: Lease) -> None:
    lease.round()  # the first round reclaims nothing, so that other workers can renew their leases first
    broker.sadd(DEAD.workers, DEAD.worker)
    hold_many(broker, DEAD)

    assert_a_round_moves_some_and_the_next_ones_all(broker, lease)
    assert not broker.sismember(DEAD.workers, DEAD.worker)


def test_messages_whose_delivery_was_lost_are_requeued_in_several_rounds(broker: redis.Redis, lease: Lease) -> None:
    lease.tags_in_hand = set
    hold_many(broker, OURS)

    assert_a_round_moves_some_and_the_next_ones_all(broker, lease)


def test_without_a_limit_of_time_all_are_requeued_at_once(broker: redis.Redis) -> None:
    postpone_many(broker)
    assert moves.resume(broker, OURS, ends_at_s=0) == 100
    assert resume(broker) == MANY - 100
    broker.sadd(DEAD.workers, DEAD.worker)
    hold_many(broker, DEAD)
    assert moves.reclaim(broker, DEAD, "dead", ends_at_s=0) == 100
    assert reclaim(broker, "dead", DEAD) == MANY - 100
