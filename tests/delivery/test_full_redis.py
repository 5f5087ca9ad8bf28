"""A Redis at ``maxmemory`` accepts no new messages, but lets workers finish those that it holds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from producer.contract.names import rung_name, step_names
from tests.chaos.takers import envelope
from tests.delivery.hands import misread
from tests.delivery.moves import OURS, QUEUE, a_lease, acknowledge, give_back, postpone, reclaim, resume, take
from tests.valkey_server import ValkeyServer
from worker.delivery.doorbell import Doorbell
from worker.delivery.upkeep import Upkeep


@pytest.fixture
def broker(own_valkey: ValkeyServer) -> Iterator[redis.Redis]:
    """A Redis that holds some messages and a worker's lease, and then is full."""
    with own_valkey.connect() as broker:
        broker.lpush(QUEUE, *(envelope(job_id) for job_id in "abcdef"))
        broker.lpush(step_names(QUEUE)[0], envelope("urgent"))
        broker.set(OURS.lease, 1)
        broker.sadd(OURS.workers, OURS.worker)
        broker.config_set("maxmemory", 1)
        with pytest.raises(redis.OutOfMemoryError):
            broker.lpush(QUEUE, envelope("new"))
        yield broker


def test_a_full_redis_lets_workers_take_acknowledge_and_requeue_messages(broker: redis.Redis) -> None:
    first, second = take(broker, "1"), take(broker, "2")

    assert acknowledge(broker, first[5]) == 1
    assert give_back(broker, second[5]) == 1
    assert take(broker, "3")[1] == second[1]
    assert broker.llen(QUEUE) == 4


def test_a_full_redis_lets_workers_postpone_and_resume_messages(broker: redis.Redis) -> None:
    assert postpone(broker, take(broker, "1")[5], 10) == 1
    assert resume(broker) == 1
    assert broker.llen(QUEUE) == 6


def test_with_a_full_redis_workers_still_take_over_a_dead_worker_s_jobs_and_mark_them_as_suspects(
    broker: redis.Redis,
) -> None:
    take(broker, "1")
    take(broker, "2")

    assert reclaim(broker, "dead") == 2
    assert broker.llen(QUEUE) == 6
    assert broker.hgetall(OURS.suspects) == {b"a": b"1", b"b": b"1"}


def test_a_full_redis_stores_malformed_messages_as_dead_letters(broker: redis.Redis) -> None:
    broker.config_set("maxmemory", 0)
    broker.hset(OURS.in_flight.replace(OURS.worker, "a-worker"), "tag", QUEUE + "\nnull")
    broker.config_set("maxmemory", 1)
    misread(broker, b"null", tag="tag")

    assert broker.llen(OURS.dead_letters) == 1


def test_a_full_redis_lets_workers_take_and_renew_leases(broker: redis.Redis) -> None:
    broker.delete(OURS.lease, OURS.workers)
    lease = a_lease(broker)
    lease.start()
    lease.leave()  # this stops the lease's thread

    broker.delete(OURS.lease, OURS.workers)
    a_lease(broker).round()
    assert broker.pttl(OURS.lease) > 0
    assert broker.sismember(OURS.workers, OURS.worker)


def test_a_full_redis_serves_messages_with_a_priority_after_the_others(broker: redis.Redis) -> None:
    upkeep = Upkeep(broker, OURS)
    upkeep.move_steps()
    assert broker.llen(QUEUE) == 6
    for number in range(6):
        take(broker, str(number))
    upkeep.move_steps()

    assert take(broker, "last")[1] == envelope("urgent").encode()


def test_an_idle_worker_finds_a_message_that_redis_cannot_move_to_wake_it(
    broker: redis.Redis, own_valkey: ValkeyServer
) -> None:
    from queue import SimpleQueue

    rings: SimpleQueue[None] = SimpleQueue()
    client = redis.Redis(connection_pool=redis.ConnectionPool.from_url(own_valkey.url(0, "worker")))
    bell = Doorbell(client, [QUEUE], lambda: rings.put(None))
    try:
        bell.listen()
        rings.get(timeout=30)
        assert bell.respond() == QUEUE
        assert broker.llen(rung_name(QUEUE)) == 0
    finally:
        bell.close()
