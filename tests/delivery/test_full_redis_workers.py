"""With a Redis at ``maxmemory``, real workers answer all jobs that it had accepted."""

from __future__ import annotations

import pytest
import redis

from producer import BrokerUnavailable, Client
from producer.contract.names import in_flight_key, in_hand_key
from tests.acceptance.origin import Origin
from tests.delivery.conftest import StartWorker
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer
from worker.delivery.times import Times

LABELS = ["owl", "car"]
TIMEOUT_S = 60


def fill(server: ValkeyServer) -> None:
    """Make Redis refuse each write that might need memory."""
    with server.connect() as operator:
        operator.config_set("maxmemory", 1)
        with pytest.raises(redis.OutOfMemoryError):
            operator.set("one-more-key", 1)


def test_a_worker_that_starts_beside_a_full_redis_answers_the_waiting_jobs(
    own_valkey: ValkeyServer, client: Client, origin: Origin, start_worker: StartWorker
) -> None:
    jobs = client.submit_many([(origin.url("/owl.png"), LABELS)] * 50)
    fill(own_valkey)
    with pytest.raises(BrokerUnavailable, match="out of memory"):
        client.submit(origin.url("/owl.png"), LABELS)
    worker = start_worker("late")

    assert {job.result(timeout=TIMEOUT_S).best.label for job in jobs} <= set(LABELS)
    with own_valkey.connect() as broker:
        eventually(lambda: not broker.exists("nameshot.default", in_hand_key("nameshot")), lambda: worker.log)


def test_another_worker_answers_the_jobs_of_a_killed_one_while_redis_is_full(
    own_valkey: ValkeyServer, client: Client, origin: Origin, start_worker: StartWorker
) -> None:
    victim = start_worker("victim")
    jobs = client.submit_many([(origin.url("/held/owl.png"), LABELS)] * 4)
    for _ in jobs:
        assert origin.asked.acquire(timeout=TIMEOUT_S)
    fill(own_valkey)
    victim.process.kill()
    victim.process.wait()
    origin.hold.set()
    heir = start_worker("heir")

    for job in jobs:
        assert job.result(timeout=TIMEOUT_S).best
    with own_valkey.connect() as broker:
        eventually(lambda: not broker.keys(in_flight_key("nameshot", "*")), lambda: heir.log)


def test_an_idle_worker_answers_new_jobs_once_redis_has_memory_again(
    own_valkey: ValkeyServer, client: Client, origin: Origin, start_worker: StartWorker, times: Times
) -> None:
    worker = start_worker("idle")
    fill(own_valkey)
    with own_valkey.connect() as operator:
        (lease,) = operator.keys("nameshot:lease:*")
        operator.expire(lease, TIMEOUT_S)
        eventually(lambda: 0 < operator.ttl(lease) <= times.lease_s, lambda: worker.log)  # renewed while Redis is full
        operator.config_set("maxmemory", 0)

    assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).best
