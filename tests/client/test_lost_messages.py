"""If a message is lost while a client waits for its answer, the wait ends, and `classify_many` sends it again."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from producer import AsyncClient, Client, JobNotFound
from producer.client.portions import MAX_LOSSES
from tests.client.stock_worker import StockWorker, result_for
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer

URL = "https://images.example/owl.jpg"
LABELS = ["fox", "owl"]


@pytest.fixture(autouse=True)
def look_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producer.client.waiting.RECHECK_S", 0.1)


@pytest.fixture
def broker(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with valkey.connect() as broker:
        yield broker


def subscriptions(valkey: ValkeyServer) -> int:
    with valkey.connect() as connection:
        return len(connection.pubsub_channels("*"))


def answer_all(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"outcomes": [result_for(kwargs["candidate_labels"]) for _ in kwargs["images"]]}


@pytest.mark.parametrize("loss", ["purge", "flush"])
def test_a_client_that_waits_for_a_lost_job_gets_job_not_found(
    loss: str, client: Client, valkey: ValkeyServer, broker: redis.Redis
) -> None:
    job = client.submit(URL, LABELS)

    def lose() -> None:
        eventually(lambda: subscriptions(valkey) == 1)
        if loss == "purge":
            broker.delete("nameshot.default")
        else:
            broker.flushall()

    losing = threading.Thread(target=lose)
    losing.start()
    with pytest.raises(JobNotFound):
        job.result(timeout=30)
    losing.join()


def test_a_task_that_waits_for_a_lost_job_gets_job_not_found(valkey: ValkeyServer, broker: redis.Redis) -> None:
    async def lose_one_of_two() -> None:
        async with AsyncClient(valkey.broker_url, valkey.result_backend) as client:
            lost = await client.submit(URL, LABELS)
            await client.submit(URL, LABELS, queue="high")
            waiting = asyncio.ensure_future(lost.result(timeout=30))
            while await asyncio.to_thread(subscriptions, valkey) < 1:  # noqa: ASYNC110 - a fact about the server
                await asyncio.sleep(0.01)
            broker.delete("nameshot.default")
            with pytest.raises(JobNotFound):
                await waiting

    asyncio.run(lose_one_of_two())


def test_a_client_that_waits_gets_the_answer_while_the_broker_is_down(own_valkey: ValkeyServer, tmp_path: Path) -> None:
    (tmp_path / "broker").mkdir()
    with ValkeyServer(tmp_path / "broker") as broker, Client(broker.broker_url, own_valkey.result_backend) as client:
        worker = StockWorker(own_valkey)
        job = client.submit(URL, LABELS)
        waiting = client._listener.wait(job.id)
        eventually(lambda: subscriptions(own_valkey) == 1)
        looks = own_valkey.connect()
        broker.stop()
        before = mget_calls(looks)
        eventually(
            lambda: mget_calls(looks) > before + 2
        )  # the client has asked the result backend more than once meanwhile
        assert not waiting.done()

        worker.succeed(job.id, result_for(LABELS))

        assert waiting.result(timeout=10).state == "succeeded"
        worker.close()


def mget_calls(connection: redis.Redis) -> int:
    return int(connection.info("commandstats").get("cmdstat_mget", {"calls": 0})["calls"])


@contextmanager
def purged_once(worker: StockWorker, valkey: ValkeyServer, broker: redis.Redis, messages: int) -> Iterator[None]:
    """Delete the first messages, and serve the queue once the client has sent the first one again."""
    ended = threading.Event()

    def lose_then_serve() -> None:
        eventually(lambda: subscriptions(valkey) == messages)
        broker.delete("nameshot.bulk")
        eventually(lambda: broker.llen("nameshot.bulk") > 0)
        with worker.serving("bulk", answer_all):
            ended.wait(30)

    thread = threading.Thread(target=lose_then_serve)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("ordered", [False, True])
def test_classify_many_sends_purged_messages_again(
    ordered: bool, client: Client, worker: StockWorker, valkey: ValkeyServer, broker: redis.Redis
) -> None:
    given = ["no url", *(f"https://images.example/{number}.jpg" for number in range(9))]

    with purged_once(worker, valkey, broker, 3):
        outcomes = list(client.classify_many(given, LABELS, images_per_message=2, in_flight=3, ordered=ordered))

    assert sorted((outcome.index, outcome.image, outcome.ok) for outcome in outcomes) == [
        (number, image, number > 0) for number, image in enumerate(given)
    ]
    assert len(worker.taken) == len(set(worker.taken)) == 5


def test_classify_many_of_the_asyncio_client_sends_purged_messages_again(
    worker: StockWorker, valkey: ValkeyServer, broker: redis.Redis
) -> None:
    async def classify() -> list[bool]:
        async with AsyncClient(valkey.broker_url, valkey.result_backend) as client:
            return [outcome.ok async for outcome in client.classify_many([URL] * 6, LABELS, images_per_message=2)]

    with purged_once(worker, valkey, broker, 3):
        assert asyncio.run(classify()) == [True] * 6


def test_images_of_a_message_that_is_lost_every_time_fail_with_a_reason(client: Client, broker: redis.Redis) -> None:
    ended = threading.Event()
    losses = 0

    def lose_all() -> None:
        nonlocal losses
        while not ended.wait(0.01):
            losses += bool(broker.delete("nameshot.bulk"))

    losing = threading.Thread(target=lose_all)
    losing.start()
    (outcome,) = client.classify_many([URL], LABELS)
    ended.set()
    losing.join()

    assert outcome.error is not None
    assert outcome.error.code == "deadline_exceeded"
    assert "the message was purged or lost" in str(outcome.error)
    assert losses == 1 + MAX_LOSSES
