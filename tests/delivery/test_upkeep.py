"""One elected worker serves the priorities of plain clients, and removes stale records and forgotten messages."""

from __future__ import annotations

import json
import time

import pytest
import redis

from producer.contract.names import (
    counts_what_it_takes,
    forget_key,
    in_hand_key,
    mixed_key,
    place_key,
    rung_name,
    step_names,
    taken_name,
)
from tests.delivery.hands import KEYS, give_up
from tests.delivery.moves import QUEUE, take
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer
from worker.delivery.names import DeliveryKeys, new_worker_name
from worker.delivery.upkeep import Upkeep

US = DeliveryKeys("nameshot", "place/1/n1")
PEER = DeliveryKeys("nameshot", "place/2/n2")
IN_HAND = in_hand_key("nameshot")


@pytest.fixture
def broker(own_valkey: ValkeyServer) -> redis.Redis:
    return own_valkey.connect()


def message(job_id: str, life: str = "") -> bytes:
    return json.dumps({"headers": {"id": job_id}, "properties": {"delivery_tag": life}}).encode()


@pytest.mark.parametrize("separator", ["\x06\x16", ":"])
def test_messages_with_a_priority_are_moved_to_their_queue_the_highest_priority_first(
    broker: redis.Redis, separator: str
) -> None:
    for step in (9, 5, 1):
        broker.lpush(f"{QUEUE}{separator}{step}", f"{step} older", f"{step} newer")
    Upkeep(broker, US).move_steps()

    assert broker.lrange(QUEUE, 0, -1)[::-1] == [
        f"{step} {age}".encode() for step in (1, 5, 9) for age in ("older", "newer")
    ]
    assert not broker.exists(*step_names(QUEUE))


def test_messages_with_a_priority_wait_while_their_queue_holds_others(broker: redis.Redis) -> None:
    broker.lpush(rung_name(QUEUE), "rings")
    broker.lpush(step_names(QUEUE)[0], "waits")
    upkeep = Upkeep(broker, US)
    upkeep.move_steps()
    assert broker.llen(QUEUE) == 0

    broker.delete(rung_name(QUEUE))
    upkeep.move_steps()
    assert broker.lrange(QUEUE, 0, -1) == [b"waits"]


def test_one_of_two_workers_is_elected_and_the_other_succeeds_it(broker: redis.Redis) -> None:
    ours, peers = Upkeep(broker, US), Upkeep(broker, PEER)
    ours.start()
    eventually(lambda: broker.get(US.upkeep) == US.worker.encode())
    peers.start()
    try:
        ours.close()
        assert broker.get(US.upkeep) != US.worker.encode()
        eventually(lambda: broker.get(US.upkeep) == PEER.worker.encode())
    finally:
        peers.close()


@pytest.mark.parametrize("junk", ["a string without an end", ["a list"]])
def test_a_key_of_another_program_does_not_prevent_the_election(broker: redis.Redis, junk: str | list[str]) -> None:
    if isinstance(junk, str):
        broker.set(US.upkeep, junk)
    else:
        broker.rpush(US.upkeep, *junk)
    ours = Upkeep(broker, US)
    ours.start()
    try:
        eventually(lambda: broker.type(US.upkeep) == b"string" and broker.get(US.upkeep) == US.worker.encode())
    finally:
        ours.close()


def test_only_records_of_jobs_that_are_nowhere_are_removed(broker: redis.Redis) -> None:
    now_s = time.time()
    broker.sadd(US.workers, US.worker)
    broker.set(taken_name(QUEUE), 5)
    stands = {
        "ours": US.worker,
        "soon": f"postponed {now_s + 10}",
        "just due": f"postponed {now_s - 10}",
        "back": "returned default 6",
    }
    stale = {"gone": PEER.worker, "long due": f"postponed {now_s - 3_600}", "served": "returned default 5"}
    for job_id, where in (stands | stale).items():
        broker.hset(IN_HAND, job_id, where)
    Upkeep(broker, US).sweep()

    assert broker.hgetall(IN_HAND) == {job_id.encode(): where.encode() for job_id, where in stands.items()}


def test_a_list_that_a_client_fills_by_mistake_is_logged_once(
    broker: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("app:nameshot.default", f"{QUEUE}|3", f"{QUEUE}:12"):
        broker.lpush(name, "a message")
    for name in (QUEUE, rung_name(QUEUE), *step_names(QUEUE), "another.default"):
        broker.lpush(name, "a message")
    broker.set("app:nameshot.high", "no list")
    upkeep = Upkeep(broker, US)
    upkeep.warn_of_unserved_lists()
    upkeep.warn_of_unserved_lists()

    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 3
    assert any("'app:nameshot.default'" in line and "send to nameshot.default" in line for line in said)


def test_a_worker_of_the_previous_version_is_recorded_for_a_day(broker: redis.Redis) -> None:
    assert counts_what_it_takes(new_worker_name())
    upkeep = Upkeep(broker, US)
    broker.sadd(US.workers, US.worker, new_worker_name())
    upkeep.flag_older_workers()
    assert not broker.exists(mixed_key("nameshot"))

    broker.sadd(US.workers, "linux-boot-4026531836/17/0123456789ab")
    upkeep.flag_older_workers()
    assert 86_000 < broker.ttl(mixed_key("nameshot")) <= 86_400


def test_a_message_that_a_worker_of_the_previous_version_requeued_is_not_counted_again(broker: redis.Redis) -> None:
    broker.set(US.lease, 1)
    broker.lpush(QUEUE, message("returned"), message("new"))
    broker.set(taken_name(QUEUE), 1)
    broker.hset(IN_HAND, "returned", PEER.worker)

    take(broker, "first", (QUEUE,), US)
    assert broker.get(taken_name(QUEUE)) == b"1"
    assert broker.hget(IN_HAND, "returned") == US.worker.encode()
    take(broker, "second", (QUEUE,), US)
    assert broker.get(taken_name(QUEUE)) == b"2"


def test_a_second_message_of_an_id_is_counted_while_a_living_worker_holds_the_first(broker: redis.Redis) -> None:
    broker.set(US.lease, 1)
    broker.sadd(US.workers, PEER.worker)
    broker.lpush(QUEUE, message("sent twice"))
    broker.set(taken_name(QUEUE), 1)
    broker.hset(IN_HAND, "sent twice", PEER.worker)

    take(broker, "second", (QUEUE,), US)
    assert broker.get(taken_name(QUEUE)) == b"2"


def test_an_uncounted_requeue_from_a_dead_worker_is_recorded_for_a_day(broker: redis.Redis) -> None:
    broker.sadd(US.workers, US.worker)
    broker.hset(IN_HAND, mapping={"due": "postponed 1", "served": "returned default 0"})
    Upkeep(broker, US).sweep()
    assert not broker.exists(mixed_key("nameshot"))

    broker.hset(IN_HAND, "returned", PEER.worker)
    Upkeep(broker, US).sweep()
    assert not broker.exists(IN_HAND)
    assert 86_000 < broker.ttl(mixed_key("nameshot")) <= 86_400


def test_forgetting_removes_the_messages_of_that_life_and_the_dead_letter(broker: redis.Redis) -> None:
    others = [message(f"other-{number}") for number in range(1_000)]
    broker.lpush(QUEUE, *others, message("job", "first"), message("job", "second"), *others)
    give_up(broker, "job", message("job", "poison"))
    give_up(broker, "neighbour", message("neighbour"))
    broker.lpush(forget_key("nameshot"), "job first")
    upkeep = Upkeep(broker, US)
    upkeep.forget()

    waiting = broker.lrange(QUEUE, 0, -1)
    assert len(waiting) == 2_001
    assert message("job", "second") in waiting
    [record] = broker.lrange(KEYS.dead_letters, 0, -1)
    assert json.loads(record)["id"] == "neighbour"
    assert list(broker.hvals(KEYS.dead_letter_messages)) == [message("neighbour")]
    assert not broker.exists(forget_key("nameshot"))


def test_forgetting_compares_the_id_and_the_life_and_not_the_text_of_a_message(
    broker: redis.Redis,
) -> None:
    broker.lpush(QUEUE, message("job", "life"), message("life", "job"), b'"headers" "properties"')
    broker.lpush(forget_key("nameshot"), "headers properties", "delivery_tag id", "job jo")
    Upkeep(broker, US).forget()

    assert broker.llen(QUEUE) == 3
    assert not broker.exists(forget_key("nameshot"))


def test_strange_requests_to_forget_are_removed_and_do_not_delay_the_others(broker: redis.Redis) -> None:
    broker.lpush(QUEUE, message("job", "life"))
    for number in range(3):
        broker.lpush(forget_key("nameshot"), *(f"{number} {index} ".ljust(200_000, "x") for index in range(50)))
        broker.lpush(forget_key("nameshot"), f"job-{number} life-{number}")
    broker.lpush(forget_key("nameshot"), "job life")
    upkeep = Upkeep(broker, US)
    eventually(lambda: upkeep.forget() and not broker.exists(forget_key("nameshot")))

    assert not broker.exists(QUEUE)


def test_many_jobs_are_forgotten_in_one_round(broker: redis.Redis) -> None:
    ids = [f"job-{number}" for number in range(400)]
    queued = [QUEUE, "nameshot.high", step_names(QUEUE)[3], rung_name(QUEUE)]
    for number, job_id in enumerate(ids):
        broker.lpush(queued[number % 4], message(job_id, f"life-{number}"), message(f"other-{number}", "a-life"))
        broker.lpush(forget_key("nameshot"), f"{job_id} life-{number}")
    Upkeep(broker, US).forget()

    assert not broker.exists(forget_key("nameshot"))
    assert [broker.llen(name) for name in queued] == [100] * 4
    assert b'"job-' not in repr(broker.lrange(QUEUE, 0, -1)).encode()


def test_forgetting_removes_only_the_postponed_message_of_that_job(broker: redis.Redis) -> None:
    for number, job_id in enumerate(("job", "neighbour")):
        held = f"tag {job_id} life-{number}\n{QUEUE}\n".encode() + message(job_id, f"life-{number}")
        broker.zadd(US.postponed, {held: 2_000_000_000.5})
        broker.hset(IN_HAND, mapping=dict.fromkeys((job_id, f"{job_id} life-{number}"), "postponed 2000000000.5"))
    broker.lpush(forget_key("nameshot"), "job life-0")
    Upkeep(broker, US).forget()

    assert broker.zcard(US.postponed) == 1
    assert sorted(broker.hkeys(IN_HAND)) == [b"neighbour", b"neighbour life-1"]


def test_forgetting_works_while_redis_is_full(broker: redis.Redis) -> None:
    broker.lpush(QUEUE, message("job", "life"), message("other", "life"))
    broker.zadd(US.postponed, {f"tag job life\n{QUEUE}\n".encode() + message("job", "life"): 1})
    give_up(broker, "job", message("job", "life"))
    broker.lpush(forget_key("nameshot"), "job life")
    broker.config_set("maxmemory", 1)
    Upkeep(broker, US).forget()

    assert broker.lrange(QUEUE, 0, -1) == [message("other", "life")]
    assert not broker.exists(US.postponed, forget_key("nameshot"), KEYS.dead_letters, KEYS.dead_letter_messages)


def test_a_list_that_another_program_overwrote_does_not_stop_forgetting(broker: redis.Redis) -> None:
    broker.set(step_names(QUEUE)[0], "junk")
    broker.set(US.postponed, "junk")
    broker.lpush(QUEUE, message("job", "life"))
    broker.lpush(forget_key("nameshot"), "job life")
    Upkeep(broker, US).forget()

    assert not broker.exists(QUEUE, forget_key("nameshot"))


def test_forgetting_leaves_the_dead_letter_of_the_job_s_new_life(broker: redis.Redis) -> None:
    give_up(broker, "job", message("job", "old"))
    give_up(broker, "job", message("job", "new"))
    broker.set(place_key("nameshot", "job"), "default 7 new")
    broker.lpush(forget_key("nameshot"), "job old")
    Upkeep(broker, US).forget()

    assert broker.hvals(KEYS.dead_letter_messages) == [message("job", "new")]
    assert broker.llen(KEYS.dead_letters) == 1


def test_a_queue_that_is_too_long_for_one_round_is_searched_in_several(broker: redis.Redis) -> None:
    broker.lpush(QUEUE, *(message(f"other-{number}") for number in range(20_000)), message("job", "life"))
    broker.lpush(forget_key("nameshot"), "job life", "next")
    upkeep = Upkeep(broker, US)
    upkeep.forget()
    assert broker.llen(forget_key("nameshot")) == 2

    for _ in range(10):
        upkeep.forget()
    assert broker.llen(QUEUE) == 20_000
    assert not broker.exists(forget_key("nameshot"))


def test_messages_are_taken_although_their_records_keys_have_wrong_types(broker: redis.Redis) -> None:
    broker.set(US.lease, 1)
    broker.lpush(QUEUE, message("job"))
    for key in (US.suspects, US.in_hand, taken_name(QUEUE)):
        broker.lpush(key, "junk")

    assert take(broker, "tag", (QUEUE,), US)[:4] == [QUEUE.encode(), message("job"), 0, 0]


def test_a_message_that_cannot_be_recorded_as_in_hand_stays_in_its_queue(broker: redis.Redis) -> None:
    broker.set(US.lease, 1)
    broker.lpush(QUEUE, message("job"))
    broker.set(US.in_flight, "junk")

    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        take(broker, "tag", (QUEUE,), US)
    assert broker.llen(QUEUE) == 1


def test_a_queue_of_a_wrong_type_does_not_block_the_others(broker: redis.Redis) -> None:
    broker.set(US.lease, 1)
    broker.set("nameshot.high", "junk")
    broker.lpush(QUEUE, message("job"))

    assert take(broker, "tag", ("nameshot.high", QUEUE), US)[1] == message("job")
