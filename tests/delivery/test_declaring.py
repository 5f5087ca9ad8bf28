"""A worker declares its queues without a key in Redis, so neither foreign keys nor a full Redis prevent its start."""

import os
from collections.abc import Iterator

import pytest
import redis
from celery import Celery
from kombu import Connection

from producer import Client
from producer.broker.urls import endpoint
from tests.acceptance.origin import Origin
from tests.delivery.conftest import StartWorker
from tests.valkey_server import ValkeyServer

LABELS = ["fox", "bear"]
TIMEOUT_S = 60
EXCHANGES = [
    *("nameshot.high", "nameshot.default", "nameshot.bulk", "celery.pidbox", "reply.celery.pidbox", "celeryev"),
    *("", "nameshot"),
]
#: The keys in which kombu keeps the bindings of queues.
KOMBUS = [
    *(f"_kombu.binding{kind}.{exchange}" for kind in ("", "_permanent") for exchange in EXCHANGES),
    "_kombu.binding_deadlines",
]

#: Those of these keys to which kombu would write for a worker and to which the worker's role permits writing.
DECLARED = ("_kombu.binding.nameshot.default", "_kombu.binding.celery.pidbox")


@pytest.fixture
def broker(own_valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with own_valkey.connect() as client:
        yield client


def may(broker: redis.Redis, command: str, key: str) -> bool:
    """Return whether Redis lets workers run a command on a key."""
    arguments = {"eval": ("return 1", "1", key), "zadd": (key, "1", "x"), "expire": (key, "1"), "smembers": (key,)}
    told = broker.execute_command("ACL", "DRYRUN", "nameshot-worker", command, *arguments.get(command, (key, "x")))
    return bool(told == b"OK")


def cut_off(broker: redis.Redis) -> None:
    """Close all connections of workers, so that they connect again."""
    for client in broker.client_list():
        if client["user"] == "nameshot-worker":
            broker.client_kill_filter(_id=client["id"])


def test_a_worker_starts_and_reconnects_whatever_the_keys_of_kombu_hold(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer, broker: redis.Redis
) -> None:
    for key in KOMBUS:
        broker.set(key, "x")

    worker = start_worker("undeterred")
    assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking
    cut_off(broker)
    assert client.classify(origin.url("/car.jpg"), LABELS, timeout=TIMEOUT_S).ranking

    broker.delete(*KOMBUS)  # there `ping` records the queue in which it waits for replies
    with Celery(broker=own_valkey.url(0), set_as_current=False) as operator:
        told = operator.control.ping(timeout=10, limit=1)
    assert told == [{f"undeterred@{os.uname().nodename}": {"ok": "pong"}}]
    assert worker.process.poll() is None


def test_a_worker_needs_no_right_to_the_keys_of_kombu(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer, broker: redis.Redis
) -> None:
    assert all(may(broker, "sadd", key) for key in DECLARED), "the role no longer permits what kombu does"
    own_valkey.permit("worker", without_keys="_kombu")
    for command in ("sadd", "smembers", "srem", "zadd", "zrem", "expire", "del", "exists", "eval"):
        assert not any(may(broker, command, key) for key in KOMBUS), command

    worker = start_worker("modest")
    assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking
    cut_off(broker)
    assert client.classify(origin.url("/car.jpg"), LABELS, timeout=TIMEOUT_S).ranking

    assert worker.stop() == 0
    assert broker.acl_log() == []
    assert not broker.keys("_kombu*")


def test_a_queue_of_the_wrong_kind_does_not_keep_a_worker_from_starting_and_serving_the_others(
    start_worker: StartWorker, client: Client, origin: Origin, broker: redis.Redis
) -> None:
    broker.set("nameshot.bulk", "x")

    worker = start_worker("partial")
    broker.delete("nameshot.bulk")

    assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking
    assert worker.process.poll() is None


def test_workers_declare_their_queues_while_redis_is_full(own_valkey: ValkeyServer, broker: redis.Redis) -> None:
    broker.config_set("maxmemory", 1)
    options = {
        "queue_prefix": "nameshot",
        "worker_name": "a-worker",
        "priority_steps": [0],
        "endpoint": endpoint(own_valkey.url(0), "NAMESHOT_BROKER_URL"),
    }
    transport = "worker.delivery.transport:AtomicTransport"

    with Connection(own_valkey.url(0), transport=transport, transport_options=options) as connection:
        channel = connection.channel()
        for queue in ("nameshot.high", "nameshot.default", "nameshot.bulk"):
            channel.exchange_declare(queue, "direct")
            channel.queue_declare(queue)
            channel.queue_bind(queue, queue, queue)
        channel.exchange_declare("celery.pidbox", "fanout")
        channel.queue_declare("a.celery.pidbox", auto_delete=True, arguments={"x-expires": 10_000})
        channel.queue_bind("a.celery.pidbox", "celery.pidbox")
        channel.maybe_refresh_binding_expiry()
        channel.close()

    assert broker.keys() == []
