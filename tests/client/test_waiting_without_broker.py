"""While only the broker is down, clients go on waiting, because answers come from the result backend."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from producer import AsyncClient, BrokerUnavailable, Client, JobNotFound, Result, ResultTimeout
from tests.client.stock_worker import StockWorker, result_for
from tests.client.test_redis_trouble import CALLS, LABELS, URL, unavailable
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer


@pytest.fixture
def answers(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A second server, the result backend."""
    with ValkeyServer(tmp_path) as server:
        yield server


@pytest.fixture
def broker(own_valkey: ValkeyServer) -> ValkeyServer:
    """The first server, the broker."""
    return own_valkey


@pytest.fixture
def divided(broker: ValkeyServer, answers: ValkeyServer) -> Iterator[Client]:
    """A client whose broker and result backend are two servers."""
    with Client(broker.broker_url, answers.result_backend) as client:
        yield client


Absent = Callable[[ValkeyServer], None]
ABSENT: dict[str, Absent] = {"stopped": ValkeyServer.stop, "frozen": ValkeyServer.freeze}


@pytest.mark.parametrize("absence", ABSENT)
def test_a_wait_that_begins_while_only_the_broker_is_down_gets_the_answer(
    absence: str, divided: Client, broker: ValkeyServer, answers: ValkeyServer
) -> None:
    job = divided.submit(URL, LABELS)
    ABSENT[absence](broker)
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(job.result, 60), threads.submit(asyncio.run, wait_in_a_loop(broker, answers, job.id))]
        wait_for_subscribers(answers, job.id, 2)
        worker = StockWorker(answers)
        worker.succeed(job.id, result_for(LABELS))

        assert [future.result(timeout=30).best.label for future in waiting] == [LABELS[0]] * 2
    worker.close()
    broker.stop()


async def wait_in_a_loop(broker: ValkeyServer, answers: ValkeyServer, job_id: str, timeout_s: float = 60) -> Result:
    async with AsyncClient(broker.broker_url, answers.result_backend) as client:
        return await client.job(job_id).result(timeout_s)


def test_a_wait_without_the_broker_ends_at_its_timeout(
    divided: Client, broker: ValkeyServer, answers: ValkeyServer
) -> None:
    job = divided.submit(URL, LABELS)
    broker.stop()

    with pytest.raises(ResultTimeout, match=r"had no answer within 0\.5 s"):
        job.result(timeout=0.5)
    with pytest.raises(ResultTimeout, match=r"had no answer within 0\.5 s"):
        asyncio.run(wait_in_a_loop(broker, answers, job.id, timeout_s=0.5))
    assert "cannot be reached" in unavailable(lambda _: job.result(timeout=0), divided)
    for name in ("submit", "status", "cancel", "queue_depths", "forget", "backlog"):
        assert "cannot be reached" in unavailable(CALLS[name], divided)


def test_a_wait_fails_if_the_broker_stays_down(
    divided: Client, broker: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.client.waiting.OUTAGE_S", 0.5)
    job = divided.submit(URL, LABELS)
    broker.stop()

    with pytest.raises(BrokerUnavailable, match=r"Redis was down for more than 0\.5 s while .* cannot be reached"):
        job.result(timeout=60)


def test_a_wait_for_an_unknown_job_ends_when_the_broker_is_back(
    divided: Client, broker: ValkeyServer, answers: ValkeyServer
) -> None:
    broker.stop()
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(divided.job("nothing").result, 60)
        wait_for_subscribers(answers, "nothing", 1)
        broker.start()

        with pytest.raises(JobNotFound):
            waiting.result(timeout=30)


def test_a_wait_that_begins_without_the_broker_ends_no_other_wait(
    divided: Client, broker: ValkeyServer, answers: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.client.waiting.OUTAGE_S", 1.0)
    before, after = divided.submit_many([(URL, LABELS)] * 2)
    with ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(before.result, 60)
        wait_for_subscribers(answers, before.id, 1)
        eventually(lambda: not divided._listener._running.listener._unconfirmed)  # type: ignore[union-attr]  # it runs by now
        broker.stop()
        with pytest.raises(BrokerUnavailable, match="Redis was down"):
            after.result(timeout=60)
        worker = StockWorker(answers)
        worker.succeed(before.id, result_for(LABELS))

        assert waiting.result(timeout=30).best.label == LABELS[0]
        worker.close()


def test_a_wait_that_a_broker_refuses_ends_at_once(
    divided: Client, broker: ValkeyServer, answers: ValkeyServer
) -> None:
    job = divided.submit(URL, LABELS)
    broker.permit("producer", without=("hmget",))

    assert "does not permit this user" in unavailable(lambda _: job.result(timeout=60), divided)
    assert "does not permit this user" in unavailable(
        lambda _: asyncio.run(wait_in_a_loop(broker, answers, job.id)), divided
    )


def wait_for_subscribers(valkey: ValkeyServer, job_id: str, number: int) -> None:
    channel = f"celery-task-meta-{job_id}"
    with valkey.connect() as connection:
        eventually(lambda: dict(connection.pubsub_numsub(channel)).get(channel.encode(), 0) >= number)
