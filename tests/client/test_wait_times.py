"""With both clients, a caller may wait any number of seconds."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from producer import AsyncClient, Client, InvalidJob, ResultTimeout
from tests.client.stock_worker import StockWorker, result_for
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer

URL = "https://images.example/owl.jpg"
LABELS = ["fox", "owl"]

Wait = Callable[[str, Any], str]


def wait_blocking(valkey: ValkeyServer, job_id: str, timeout: Any) -> str:
    with Client(valkey.broker_url, valkey.result_backend) as client:
        return client.job(job_id).result(timeout).best.label


def wait_async(valkey: ValkeyServer, job_id: str, timeout: Any) -> str:
    async def wait() -> str:
        async with AsyncClient(valkey.broker_url, valkey.result_backend) as client:
            return (await client.job(job_id).result(timeout)).best.label

    return asyncio.run(wait())


@pytest.fixture(params=[wait_blocking, wait_async])
def wait(request: pytest.FixtureRequest, valkey: ValkeyServer) -> Wait:
    return lambda job_id, timeout: str(request.param(valkey, job_id, timeout))


@pytest.mark.parametrize("timeout", [float("inf"), 1e10, 1e308, 10**400], ids=["inf", "1e10", "1e308", "10**400"])
def test_a_wait_may_be_longer_than_any_clock_can_count(
    timeout: float, wait: Wait, client: Client, worker: StockWorker, valkey: ValkeyServer
) -> None:
    job = client.submit(URL, LABELS)

    def answer() -> None:
        with valkey.connect() as connection:
            eventually(lambda: bool(connection.pubsub_channels("*")))
        worker.succeed(job.id, result_for(LABELS))

    with ThreadPoolExecutor(1) as threads:
        answering = threads.submit(answer)
        assert wait(job.id, timeout) == "fox"
        answering.result()


@pytest.mark.parametrize("timeout", [0, -1, float("-inf")])
def test_a_wait_of_no_time_returns_only_a_stored_answer(
    timeout: float, wait: Wait, client: Client, worker: StockWorker
) -> None:
    job = client.submit(URL, LABELS)

    with pytest.raises(ResultTimeout, match=f"job {job.id} had no answer within 0 s"):
        wait(job.id, timeout)
    worker.succeed(job.id, result_for(LABELS))
    assert wait(job.id, timeout) == "fox"


@pytest.mark.parametrize(("timeout", "kind"), [(float("nan"), "nan"), ("3", "str"), (True, "bool")])
def test_a_timeout_that_is_no_number_of_seconds_is_refused(timeout: Any, kind: str, wait: Wait, client: Client) -> None:
    job = client.submit(URL, LABELS)

    with pytest.raises(InvalidJob, match=f"^timeout must be a number of seconds or None, not {kind}.$"):
        wait(job.id, timeout)


def test_classify_refuses_a_wrong_timeout_before_it_sends_anything(client: Client, valkey: ValkeyServer) -> None:
    async def classify() -> None:
        async with AsyncClient(valkey.broker_url, valkey.result_backend) as client:
            await client.classify(URL, LABELS, timeout=float("nan"))

    with pytest.raises(InvalidJob, match=r"^timeout must be a number of seconds or None, not nan"):
        client.classify(URL, LABELS, timeout=float("nan"))
    with pytest.raises(InvalidJob, match=r"^timeout must be a number of seconds or None, not nan"):
        asyncio.run(classify())

    assert client.queue_depths()["default"] == 0
