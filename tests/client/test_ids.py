"""A job's id is a text; a caller may also pass a number or a UUID."""

import asyncio
import uuid
from typing import Any

import pytest

from producer import AsyncClient, Client, InvalidJob
from tests.client.stock_worker import StockWorker, result_for
from tests.valkey_server import ValkeyServer

URL = "https://images.example/owl.jpg"
LABELS = ["fox", "owl"]
UUID = uuid.UUID("2aed1319-600b-45a3-9412-5c2f5b7d3a10")


@pytest.mark.parametrize("given", [17, -17, 0, UUID])
def test_a_number_or_a_uuid_stands_for_its_text(given: Any, client: Client, worker: StockWorker) -> None:
    job = client.submit(URL, LABELS, job_id=given)

    assert job.id == str(given)
    assert not client.submit(URL, LABELS, job_id=str(given)).is_new
    assert client.submit_many([{"url": URL, "labels": LABELS, "job_id": given}])[0].id == job.id
    assert client.look_up(given).state == "queued"
    assert client.position(given) == 0
    worker.succeed(job.id, result_for(LABELS))
    assert client.job(given).result(timeout=5) == client.wait_for(given, 5).result()
    assert not client.cancel(given)
    assert client.forget(given)


def test_an_asyncio_client_accepts_numbers_and_uuids_too(valkey: ValkeyServer) -> None:
    async def states() -> list[str]:
        async with AsyncClient(valkey.broker_url, valkey.result_backend) as client:
            job = await client.submit(URL, LABELS, job_id=17)
            found = [(await client.look_up(17)).state, await client.job(17).status()]
            assert await client.position(17) == 0
            assert await client.cancel(17)
            return [job.id, *found, (await client.wait_for(17, 5)).state]

    assert asyncio.run(states()) == ["17", "queued", "queued", "cancelled"]


@pytest.mark.parametrize("wrong", [True, 1.0, b"17", None, ["17"], {"id": 17}])
def test_a_value_that_cannot_be_an_id_is_refused_with_its_type(wrong: Any, client: Client) -> None:
    calls: tuple[Any, ...] = (client.job, client.look_up, client.cancel, client.forget, client.position)
    for call in calls:
        with pytest.raises(InvalidJob, match=r"^job_id must be a string, a whole number or a UUID, not \w+\.$"):
            call(wrong)


def test_a_number_that_is_too_long_is_refused(client: Client) -> None:
    with pytest.raises(InvalidJob, match=r"^job_id must be 1 to 128 of the characters"):
        client.submit(URL, LABELS, job_id=10**400)


def test_an_id_that_only_plain_clients_use_can_be_looked_up(client: Client) -> None:
    assert client.look_up("an id of Celery's").state == "unknown"
    with pytest.raises(InvalidJob, match="half of a surrogate pair"):
        client.look_up("\ud800")
