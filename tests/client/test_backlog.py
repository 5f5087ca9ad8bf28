"""The backlog, by which operators scale workers: how many messages were accepted and have no answer yet."""

import asyncio
from collections.abc import Iterator

import pytest
import redis

from producer import AsyncClient, Backlog, Client
from tests.valkey_server import ValkeyServer

URL = "https://images.example/owl.jpg"
LABELS = ["fox", "owl"]
LIVING, DEAD, OLD_DEAD = "a-host/1/n00", "a-host/2/n01", "a-host/3/02"


@pytest.fixture
def broker(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with valkey.connect() as broker:
        yield broker


def hold(broker: redis.Redis, worker: str, messages: int, *, lives: bool) -> None:
    broker.sadd("nameshot:workers", worker)
    if lives:
        broker.set(f"nameshot:lease:{worker}", "a-host/1")
    for number in range(messages):
        broker.hset(f"nameshot:in-flight:{worker}", f"tag-{number}", "nameshot.default\n{}")


def test_without_messages_the_backlog_is_zero(client: Client) -> None:
    assert client.backlog() == Backlog(
        {"high": 0, "default": 0, "bulk": 0}, postponed=0, in_hand=0, in_dead_hands=0, workers=0
    )


def test_every_accepted_message_counts_once_wherever_it_is(client: Client, broker: redis.Redis) -> None:
    for queue in ("high", "default", "default", "bulk"):
        client.submit(URL, LABELS, queue=queue)
    broker.lmove("nameshot.default", "nameshot.default:rung", "RIGHT", "LEFT")
    broker.lpush("nameshot.bulk\x06\x169", "{}", "{}")
    broker.zadd("nameshot:postponed", {"tag\nnameshot.default\n{}": 1})
    hold(broker, LIVING, 5, lives=True)
    hold(broker, DEAD, 3, lives=False)
    hold(broker, OLD_DEAD, 2, lives=False)

    backlog = client.backlog()

    assert backlog == Backlog({"high": 1, "default": 2, "bulk": 3}, postponed=1, in_hand=5, in_dead_hands=5, workers=1)
    assert backlog.total == 17
    assert client.queue_depths() == backlog.waiting


def test_the_asyncio_client_reports_the_same_backlog(valkey: ValkeyServer) -> None:
    async def count() -> int:
        async with AsyncClient(valkey.broker_url, valkey.result_backend) as client:
            job = await client.submit(URL, LABELS)
            assert await job.position() == await client.position(job.id) == 0
            assert await job.forget() is await client.forget(job.id) is False
            return (await client.backlog()).total

    assert asyncio.run(count()) == 1


def test_messages_of_a_worker_that_starts_during_the_count_are_counted_too(client: Client, broker: redis.Redis) -> None:
    """The client read the set of workers before this one joined it."""
    from producer.operations.backlog import backlog

    operation = backlog("nameshot")
    reply = client._link._execute(next(operation))
    hold(broker, LIVING, 2, lives=True)
    call = operation.send(reply)
    call = operation.send(client._link._execute(call))

    with pytest.raises(StopIteration) as ended:
        operation.send(client._link._execute(call))
    assert ended.value.value.in_hand == 2
