"""Workers requeue what a dead worker held in parts, and Redis serves other clients in between."""

import json

import pytest
import redis

from tests.delivery.moves import OURS, QUEUE, acknowledge, reclaim_a_part, take
from tests.valkey_server import ValkeyServer
from worker.delivery.envelope import MAX_MESSAGE_BYTES
from worker.delivery.names import new_tag


@pytest.fixture
def broker(valkey: ValkeyServer) -> redis.Redis:
    broker = valkey.connect()
    broker.set(OURS.lease, 1)
    broker.sadd(OURS.workers, OURS.worker)
    return broker


def message(job_id: str) -> bytes:
    return json.dumps({"headers": {"id": job_id, "task": "nameshot.classify"}}).encode()


def test_a_dead_worker_s_messages_are_requeued_in_parts_in_the_order_in_which_they_were_taken(
    broker: redis.Redis,
) -> None:
    jobs = [message(f"job-{number}") for number in range(250)]
    broker.lpush(QUEUE, *jobs)
    for _ in jobs:
        take(broker, new_tag())
    broker.delete(OURS.lease)

    assert [reclaim_a_part(broker, "dead") for _ in range(4)] == [(100, 150), (100, 50), (50, 0), (0, 0)]
    assert broker.lrange(QUEUE, 0, -1) == jobs[::-1]
    assert set(broker.hvals(OURS.suspects)) == {b"1"}
    assert broker.hlen(OURS.suspects) == 250
    assert not broker.exists(OURS.in_flight, OURS.workers)


def test_no_part_has_many_large_messages(broker: redis.Redis) -> None:
    broker.lpush(QUEUE, *[message(f"job-{number}").ljust(MAX_MESSAGE_BYTES) for number in range(3)])
    for tag in "abc":
        take(broker, tag)
    broker.delete(OURS.lease)

    assert [reclaim_a_part(broker, "dead") for _ in range(3)] == [(1, 2), (1, 1), (1, 0)]


def test_only_the_job_that_ran_alone_is_blamed_in_whichever_part_it_is_requeued(broker: redis.Redis) -> None:
    broker.lpush(QUEUE, message("culprit"), message("mate"), message("other"))
    for _ in range(3):
        take(broker, new_tag())
    broker.set(OURS.alone, "culprit")
    broker.delete(OURS.lease)

    assert [reclaim_a_part(broker, "dead", most=1) for _ in range(3)] == [(1, 2), (1, 1), (1, 0)]
    assert broker.hgetall(OURS.suspects) == {b"culprit": b"1", b"alone culprit": b"1"}
    assert not broker.exists(OURS.alone)


def test_a_frozen_worker_that_goes_on_between_two_parts_keeps_the_rest(broker: redis.Redis) -> None:
    broker.lpush(QUEUE, message("older"), message("newer"))
    older, newer = (take(broker, new_tag())[5] for _ in range(2))
    broker.delete(OURS.lease)
    assert reclaim_a_part(broker, "dead", most=1) == (1, 1)
    broker.set(OURS.lease, 1)

    assert reclaim_a_part(broker, "dead", most=1) == (-1, 0)
    assert (acknowledge(broker, older), acknowledge(broker, newer)) == (1, 0)
    assert broker.sismember(OURS.workers, OURS.worker)
    assert take(broker, new_tag())[1] == message("newer")
