"""The scripts that move messages, on a real Valkey."""

import json

import pytest
import redis

from producer.contract.names import rung_name
from tests.delivery.moves import (
    FAR_AHEAD_S,
    OURS,
    QUEUE,
    acknowledge,
    give_back,
    postpone,
    reclaim,
    resume,
    take,
)
from tests.valkey_server import ValkeyServer
from worker.delivery import moves
from worker.delivery.envelope import MAX_MESSAGE_BYTES
from worker.delivery.marks import DRAINING


@pytest.fixture
def broker(valkey: ValkeyServer) -> redis.Redis:
    broker = valkey.connect()
    broker.set(OURS.lease, 1)
    broker.sadd(OURS.workers, OURS.worker)
    return broker


def message(job_id: str) -> bytes:
    return json.dumps({"headers": {"id": job_id, "task": "nameshot.classify"}, "numbers": [1e400, []]}).encode()


def test_nothing_is_taken_from_an_empty_queue(broker: redis.Redis) -> None:
    assert take(broker, "tag") is None
    assert not broker.exists(OURS.in_flight)


def test_the_oldest_message_is_taken_byte_by_byte_and_recorded_in_the_same_step(broker: redis.Redis) -> None:
    broker.lpush(QUEUE, message("first"), message("second"))

    assert take(broker, "tag") == [
        QUEUE.encode(),
        message("first"),
        0,
        0,
        len(message("first")),
        b"tag first",
        b"first",
    ]
    assert broker.hgetall(OURS.in_flight) == {b"tag first": QUEUE.encode() + b"\n" + message("first")}


def test_a_worker_without_a_lease_takes_nothing(broker: redis.Redis) -> None:
    broker.lpush(QUEUE, b"job")
    broker.delete(OURS.lease)

    assert take(broker, "tag") == 0
    assert broker.llen(QUEUE) == 1


def test_the_first_queue_that_holds_a_message_is_served(broker: redis.Redis) -> None:
    broker.lpush("nameshot.bulk", b"bulk")
    broker.lpush("nameshot.default", b"default")

    assert take(broker, "1", ("nameshot.high", "nameshot.bulk", "nameshot.default"))[1] == b"bulk"
    assert take(broker, "2", ("nameshot.high", "nameshot.bulk", "nameshot.default"))[1] == b"default"


def test_rung_messages_are_taken_first_and_are_requeued_in_their_queue(broker: redis.Redis) -> None:
    broker.lpush(rung_name(QUEUE), b"older", b"newer")
    broker.lpush(QUEUE, b"last")

    assert [take(broker, tag)[:2] for tag in "abc"] == [
        [QUEUE.encode(), each] for each in (b"older", b"newer", b"last")
    ]
    assert [give_back(broker, tag) for tag in "cba"] == [1, 1, 1]
    assert broker.lrange(QUEUE, 0, -1) == [b"last", b"newer", b"older"]


@pytest.mark.parametrize("body", [b"null", b"\xff\x00\n", b"[" * 50_000, b""])
def test_junk_moves_like_any_other_message(broker: redis.Redis, body: bytes) -> None:
    broker.hset(OURS.suspects, "somebody", 1)
    broker.lpush(QUEUE, body)

    assert take(broker, "tag")[1] == body
    assert reclaim(broker, "dead") == 1
    assert broker.lrange(QUEUE, 0, -1) == [body]


def test_a_requeued_message_is_the_next_to_be_taken(broker: redis.Redis) -> None:
    broker.lpush(QUEUE, b"a", b"b", b"c")
    take(broker, "1")

    assert give_back(broker, "1") == 1
    assert broker.lrange(QUEUE, 0, -1) == [b"c", b"b", b"a"]
    assert not broker.exists(OURS.in_flight)


def test_a_worker_can_neither_requeue_nor_acknowledge_a_message_that_was_reclaimed_from_it(broker: redis.Redis) -> None:
    broker.lpush(QUEUE, b"job")
    take(broker, "old tag")
    reclaim(broker, "dead")
    broker.set(OURS.lease, 1)
    take(broker, "new tag")

    assert give_back(broker, "old tag") == 0
    assert acknowledge(broker, "old tag") == 0
    assert broker.hkeys(OURS.in_flight) == [b"new tag"]


def test_a_worker_with_a_valid_lease_keeps_its_messages(broker: redis.Redis) -> None:
    broker.lpush(QUEUE, b"job")
    take(broker, "tag")

    assert moves.reclaim(broker, OURS, "dead") == -1
    assert broker.hexists(OURS.in_flight, "tag")


def test_a_dead_worker_s_messages_are_reclaimed_once_however_many_workers_try(broker: redis.Redis) -> None:
    broker.lpush(QUEUE, message("job"))
    take(broker, "tag")

    assert [reclaim(broker, "dead"), reclaim(broker, "gone")] == [1, 0]
    assert broker.llen(QUEUE) == 1
    assert broker.hget(OURS.suspects, "job") == b"1"


def test_all_jobs_of_a_dead_worker_become_suspects(broker: redis.Redis) -> None:
    broker.lpush(QUEUE, message("a"), message("b"), message("c"))
    take(broker, "1")
    take(broker, "2")
    reclaim(broker, "dead")

    assert broker.hgetall(OURS.suspects) == {b"a": b"1", b"b": b"1"}
    broker.set(OURS.lease, 1)
    taken = [take(broker, str(number)) for number in range(3)]
    assert sorted(int(deaths) for _, _, deaths, *_ in taken) == [0, 1, 1]


def test_only_the_job_that_ran_alone_is_blamed(broker: redis.Redis) -> None:
    broker.lpush(QUEUE, message("culprit"), message("prefetched"))
    take(broker, "1")
    take(broker, "2")
    broker.set(OURS.alone, "culprit")
    reclaim(broker, "dead")

    assert broker.hgetall(OURS.suspects) == {b"culprit": b"1", b"alone culprit": b"1"}
    assert not broker.exists(OURS.alone)


def test_a_worker_that_is_killed_while_it_ends_blames_no_job(broker: redis.Redis) -> None:
    broker.lpush(QUEUE, message("a"), message("b"))
    take(broker, "1")
    take(broker, "2")
    broker.set(OURS.alone, DRAINING)

    assert reclaim(broker, "dead") == 2
    assert not broker.exists(OURS.suspects)


def test_only_the_image_of_a_bulk_job_that_ran_alone_is_blamed(broker: redis.Redis) -> None:
    broker.lpush(QUEUE, message("bulk"))
    take(broker, "1")
    broker.set(OURS.alone, "bulk 7")
    reclaim(broker, "dead")

    assert broker.hgetall(OURS.suspects) == {b"bulk": b"1", b"alone bulk 7": b"1"}


def test_a_worker_that_leaves_blames_no_job_and_leaves_no_keys(broker: redis.Redis) -> None:
    broker.lpush(QUEUE, message("job"))
    take(broker, "tag")

    assert reclaim(broker, "leaving") == 1
    assert broker.keys("nameshot:*") == [OURS.in_hand.encode()]
    assert broker.llen(QUEUE) == 1


def test_the_content_of_a_message_that_is_too_large_stays_in_redis(broker: redis.Redis) -> None:
    broker.lpush(QUEUE, b"x" * (MAX_MESSAGE_BYTES + 1))

    assert take(broker, "tag") == [QUEUE.encode(), b"", 0, 0, MAX_MESSAGE_BYTES + 1, b"tag", b""]
    assert broker.hstrlen(OURS.in_flight, "tag") > MAX_MESSAGE_BYTES


def test_a_message_that_is_too_large_is_taken_with_its_id(broker: redis.Redis) -> None:
    broker.lpush(QUEUE, message("large").replace(b"[]", b'"' + b"x" * MAX_MESSAGE_BYTES + b'"'))

    taken = take(broker, "tag")

    assert (taken[1], taken[5]) == (b"", b"tag large")


def test_postponed_messages_are_requeued_byte_by_byte_at_their_time_the_earliest_first(
    broker: redis.Redis,
) -> None:
    bodies = [message("later"), message("sooner"), message("sooner"), b"\x00\n\xff"]
    broker.lpush(QUEUE, *bodies)
    for tag, due_s in (("a", 30), ("b", 10), ("c", 10), ("d", FAR_AHEAD_S)):
        assert postpone(broker, take(broker, tag)[5], due_s) == 1
    assert postpone(broker, "a later", 30) == 0
    assert not broker.exists(QUEUE, OURS.in_flight)

    assert resume(broker) == 3
    assert [take(broker, tag)[1] for tag in "efg"] == [message("sooner"), message("sooner"), message("later")]
    assert resume(broker) == 0
    last = broker.zrange(OURS.postponed, 0, -1)[0]
    assert isinstance(last, bytes)
    broker.zadd(OURS.postponed, {last: broker.time()[0]})
    assert resume(broker) == 1
    assert take(broker, "h")[1] == bodies[3]


def test_a_message_is_postponed_by_the_clock_of_redis(broker: redis.Redis) -> None:
    broker.lpush(QUEUE, message("later"))
    earliest_s = broker.time()[0] + 60

    assert moves.postpone_for(broker, OURS, take(broker, "tag")[5], 60.0) == 1

    where = broker.hget(OURS.in_hand, "later")
    assert isinstance(where, bytes)
    until_s = int(where.removeprefix(b"postponed "))
    assert earliest_s <= until_s <= broker.time()[0] + 60
    assert broker.zcount(OURS.postponed, until_s, until_s) == 1
    assert resume(broker) == 0


@pytest.mark.parametrize("text", ['"\\ud83d"', '"\\uDC00 \\\\ud83d"', "NaN", "[" * 900 + "]" * 900])
def test_a_job_becomes_a_suspect_whatever_its_unread_headers_contain(broker: redis.Redis, text: str) -> None:
    raw = message("sloppy").replace(b'"numbers":', b'"unread": ' + text.encode() + b', "numbers":')
    broker.lpush(QUEUE, raw)
    take(broker, "tag")

    assert reclaim(broker, "dead") == 1

    assert broker.hgetall(OURS.suspects) == {b"sloppy": b"1"}
