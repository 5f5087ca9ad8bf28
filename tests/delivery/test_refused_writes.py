"""A script that Redis stops half-way, because of a missing permission or a wrong key, loses no message."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing, suppress

import pytest
import redis

from producer import Client
from producer.broker.access import roles
from producer.broker.connections import BlockingLink
from producer.broker.urls import endpoint
from producer.contract.names import rung_name, step_names
from producer.errors import NameshotError
from producer.operations.dead_letters import list_letters, replay_letter
from tests.delivery.moves import OURS, QUEUE, give_back, postpone, reclaim, resume, take
from tests.delivery.test_scripts import message
from tests.valkey_server import ValkeyServer
from worker.delivery.dead_letters import DeadLetters
from worker.delivery.letter_records import arguments, malformed_record
from worker.delivery.scripts import BURY, HAND_ON
from worker.delivery.upkeep import Upkeep

RUNG, STEP = rung_name(QUEUE), step_names(QUEUE)[0]
RAW = message("job")
TAG = "tag job"
#: The commands with which a worker's scripts may write, and which Redis could refuse.
WRITES = sorted(
    {command for role in roles("nameshot")[:2] for command in role.commands}
    & {"del", "expire", "hdel", "hincrby", "hset", "lpop", "lpush", "lrem", "rpop", "rpush", "set", "zadd", "zrem"}
    | {"decr", "incr", "srem"}
)
#: A wrong type that a foreign program could store under each key that the scripts write.
WRONG = {
    QUEUE: "string",
    RUNG: "string",
    OURS.postponed: "string",
    OURS.dead_letters: "string",
    OURS.dead_letter_messages: "string",
    OURS.in_flight: "string",
    OURS.in_hand: "string",
    OURS.suspects: "string",
    OURS.workers: "string",
    f"{QUEUE}:taken": "list",
}


@pytest.fixture
def admin(own_valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with own_valkey.connect() as admin:
        yield admin


@pytest.fixture
def worker(own_valkey: ValkeyServer) -> Iterator[redis.Redis]:
    """A connection in the worker's role."""
    with redis.Redis.from_url(own_valkey.url(0, "worker")) as worker:
        yield worker


def in_hand(admin: redis.Redis) -> None:
    admin.hset(OURS.in_flight, TAG, QUEUE.encode() + b"\n" + RAW)
    admin.sadd(OURS.workers, OURS.worker)
    admin.set(OURS.lease, 1)


def of_no_queue(admin: redis.Redis) -> None:
    in_hand(admin)
    admin.hset(OURS.in_flight, TAG, b"strange\n" + RAW)


def waiting(admin: redis.Redis) -> None:
    admin.set(OURS.lease, 1)
    admin.lpush(QUEUE, RAW)


def rung(admin: redis.Redis) -> None:
    admin.lpush(RUNG, RAW)


def urgent(admin: redis.Redis) -> None:
    admin.lpush(STEP, RAW)


def postponed(admin: redis.Redis) -> None:
    admin.zadd(OURS.postponed, {f"{TAG}\n{QUEUE}\n".encode() + RAW: 10})


def a_letter(admin: redis.Redis) -> None:
    in_hand(admin)
    DeadLetters(admin, OURS).poisoned(TAG, job_id="job", task="nameshot.classify", deaths=3)
    admin.delete(OURS.in_flight)


def replay(worker: redis.Redis) -> None:
    broker = worker.connection_pool.connection_kwargs
    url = f"redis://{broker['username']}:{broker['password']}@{broker['host']}:{broker['port']}"
    servers = [endpoint(f"{url}/{database}", "the URL") for database in (0, 1)]
    with closing(BlockingLink(*servers)) as link, suppress(NameshotError):
        for letter in link.run(list_letters("nameshot")):
            link.run(replay_letter("nameshot", letter, result_ttl_s=60, max_queue=10))


def bury(worker: redis.Redis) -> None:
    worker.eval(BURY, *arguments(OURS, TAG, malformed_record("job"), apart=TAG, then="forget"))


#: By name, where a message is at first, and the script that moves it from there.
MOVES: dict[str, tuple[Callable[[redis.Redis], None], Callable[[redis.Redis], object]]] = {
    "take": (waiting, lambda worker: take(worker, "tag")),
    "take what rang": (rung, lambda worker: take(worker, "tag")),
    "hand on": (rung, lambda worker: worker.eval(HAND_ON, 2, RUNG, QUEUE)),
    "serve a priority": (urgent, lambda worker: Upkeep(worker, OURS).move_steps()),
    "give back": (in_hand, lambda worker: give_back(worker, TAG)),
    "give back to no queue": (of_no_queue, lambda worker: give_back(worker, TAG)),
    "postpone": (in_hand, lambda worker: postpone(worker, TAG, 10)),
    "resume": (postponed, resume),
    "reclaim": (in_hand, lambda worker: reclaim(worker, "dead")),
    "reclaim for no queue": (of_no_queue, lambda worker: reclaim(worker, "dead")),
    "bury": (in_hand, bury),
    "replay": (a_letter, replay),
}


def copies(admin: redis.Redis) -> int:
    """Return how many copies there are of the message or of its record as a malformed letter."""
    found, values = 0, list[bytes | str]()
    for key in admin.keys("nameshot*"):
        match admin.type(key):
            case b"list":
                values = admin.lrange(key, 0, -1)
            case b"hash":
                values = admin.hvals(key)
            case b"zset":
                values = [member for member, _ in admin.zscan_iter(key)]
            case _:
                values = []
        found += sum('"task": "nameshot.classify"' in str(value) or '"malformed"' in str(value) for value in values)
    return found


@pytest.mark.parametrize("move", MOVES)
def test_a_message_is_not_lost_whichever_permission_the_worker_lacks(
    move: str, own_valkey: ValkeyServer, admin: redis.Redis, worker: redis.Redis
) -> None:
    lie, go = MOVES[move]
    for missing in WRITES:
        admin.flushall()
        lie(admin)
        own_valkey.permit("worker", without=(missing,))
        with suppress(redis.RedisError):
            go(worker)
        own_valkey.permit("worker")

        assert copies(admin) == 1, missing
        with suppress(redis.RedisError):
            go(worker)
        assert copies(admin) == 1, f"after {missing} is permitted again"


@pytest.mark.parametrize("move", MOVES)
def test_a_message_is_not_lost_whichever_key_holds_another_type(
    move: str, admin: redis.Redis, worker: redis.Redis
) -> None:
    lie, go = MOVES[move]
    for key, kind in WRONG.items():
        admin.flushall()
        lie(admin)
        if admin.exists(key):
            continue  # this key is part of the state from which the message moves
        admin.set(key, "junk") if kind == "string" else admin.lpush(key, "junk")
        with suppress(redis.RedisError):
            go(worker)

        assert copies(admin) == 1, key


def test_messages_that_cannot_be_requeued_do_not_delay_the_others(admin: redis.Redis, worker: redis.Redis) -> None:
    admin.set(OURS.lease, 1)
    admin.sadd(OURS.workers, OURS.worker)
    for number, queue in enumerate(["nameshot.high", QUEUE, "nameshot.high", QUEUE]):
        admin.hset(OURS.in_flight, f"{number}", queue.encode() + b"\n" + message(f"job-{number}"))
    admin.set("nameshot.high", "junk")

    with pytest.raises(redis.ResponseError, match=r"WRONGTYPE .*nameshot\.high"):
        reclaim(worker, "dead")
    assert admin.lrange(QUEUE, 0, -1) == [message("job-3"), message("job-1")]
    assert sorted(admin.hkeys(OURS.in_flight)) == [b"0", b"2"]
    assert admin.sismember(OURS.workers, OURS.worker)

    admin.delete("nameshot.high")
    assert reclaim(worker, "dead") == 2
    assert admin.lrange("nameshot.high", 0, -1) == [message("job-2"), message("job-0")]
    assert not admin.sismember(OURS.workers, OURS.worker)


def test_postponed_messages_of_an_overwritten_queue_do_not_delay_the_others(
    admin: redis.Redis, worker: redis.Redis
) -> None:
    for number, queue in enumerate(["nameshot.high"] * 150 + [QUEUE]):
        admin.zadd(OURS.postponed, {f"tag-{number}\n{queue}\n".encode() + message(f"job-{number}"): number})
    admin.set("nameshot.high", "junk")

    with pytest.raises(redis.ResponseError, match=r"WRONGTYPE .*nameshot\.high"):
        resume(worker)
    assert admin.lrange(QUEUE, 0, -1) == [message("job-150")]
    assert admin.zcard(OURS.postponed) == 150


def test_an_id_is_not_claimed_for_a_message_that_redis_refuses(own_valkey: ValkeyServer, admin: redis.Redis) -> None:
    own_valkey.permit("producer", without=("lpush",))
    with Client(own_valkey.broker_url, own_valkey.result_backend) as client:
        with pytest.raises(NameshotError):
            client.submit("http://example.com/a.png", ["fox"], job_id="a-job")
        assert not admin.keys("nameshot:claim:*")

        own_valkey.permit("producer")
        assert client.submit("http://example.com/a.png", ["fox"], job_id="a-job").is_new
        assert client.job("a-job").status() == "queued"


def test_newer_dead_letters_never_displace_that_of_a_job_whose_answer_could_not_be_stored(
    admin: redis.Redis, worker: redis.Redis
) -> None:
    letters = DeadLetters(worker, OURS)
    kinds = ["unanswerable"] * 20 + ["poisoned"] * 1_100
    for number, kind in enumerate(kinds):
        raw = message(f"{kind}-{number}")
        admin.hset(OURS.in_flight, "tag", QUEUE.encode() + b"\n" + raw)
        if kind == "poisoned":
            letters.poisoned("tag", job_id=f"{number}", task="nameshot.classify", deaths=3)
        else:
            letters.unanswerable("tag", job_id=f"{number}", task="nameshot.classify")

    records = [json.loads(record) for record in admin.lrange(OURS.dead_letters, 0, -1)]
    assert len(records) == 1_000
    assert sum(record["code"] == "unanswerable" for record in records) == 20
    assert admin.hlen(OURS.dead_letter_messages) == 1_000
    assert all(admin.hexists(OURS.dead_letter_messages, record["letter"]) for record in records)
