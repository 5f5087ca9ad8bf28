"""Both clients have the same options, with the same defaults, and refuse any other by name."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest

from producer import AsyncClient, Client, InvalidJob, ResultTimeout
from producer.contract.names import QUEUES
from tests.client.stock_worker import StockWorker, result_for
from tests.valkey_server import ValkeyServer

URLS = [f"https://images.example/{number}.jpg" for number in range(70)]
LABELS = ["fox", "owl"]

Call = Callable[..., object]


def answer_all(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"outcomes": [result_for(kwargs["candidate_labels"]) for _ in kwargs["images"]]}


async def outcomes(client: AsyncClient, **options: Any) -> list[int]:
    async with aclosing(client.classify_many(URLS, LABELS, **options)) as stream:
        return sorted([outcome.index async for outcome in stream])


@pytest.fixture
def calls(client: Client, valkey: ValkeyServer) -> dict[str, Call]:
    waiting = AsyncClient(valkey.broker_url, valkey.result_backend)
    return {
        "submit": lambda **options: client.submit(URLS[0], LABELS, **options),
        "classify": lambda **options: client.classify(URLS[0], LABELS, **options),
        "classify_many": lambda **options: sorted(one.index for one in client.classify_many(URLS, LABELS, **options)),
        "async submit": lambda **options: asyncio.run(waiting.submit(URLS[0], LABELS, **options)),
        "async classify": lambda **options: asyncio.run(waiting.classify(URLS[0], LABELS, **options)),
        "async classify_many": lambda **options: asyncio.run(outcomes(waiting, **options)),
    }


@pytest.mark.parametrize("name", ["submit", "classify", "classify_many"])
def test_an_unknown_option_is_named_and_nothing_is_sent(name: str, calls: dict[str, Call], client: Client) -> None:
    for call in (calls[name], calls[f"async {name}"]):
        with pytest.raises(TypeError, match="got an unexpected keyword argument 'tempalte'"):
            call(tempalte="a {}")

    assert client.queue_depths() == dict.fromkeys(QUEUES, 0)


@pytest.mark.parametrize("name", ["submit", "classify_many"])
def test_a_call_that_does_not_wait_refuses_timeout_and_suggests_download_timeout(
    name: str, calls: dict[str, Call], client: Client
) -> None:
    for call in (calls[name], calls[f"async {name}"]):
        with pytest.raises(InvalidJob, match=r"^timeout is the time to wait .* give download_timeout\.$"):
            call(timeout=2)

    with pytest.raises(InvalidJob, match=r"^jobs\[0\]: timeout is the time to wait .* give download_timeout\."):
        client.submit_many([{"url": URLS[0], "labels": LABELS, "timeout": 2}])
    assert client.queue_depths() == dict.fromkeys(QUEUES, 0)


def test_the_timeout_of_classify_bounds_the_wait(calls: dict[str, Call], worker: StockWorker) -> None:
    for name in ("classify", "async classify"):
        with pytest.raises(ResultTimeout, match=r"had no answer within 0\.1 s"):
            calls[name](timeout=0.1, download_timeout=2.5)

        assert worker.take("default").payload[1]["timeout"] == 2.5


def test_without_options_both_clients_send_the_same_job(calls: dict[str, Call], worker: StockWorker) -> None:
    for name in ("submit", "async submit"):
        calls[name]()
        assert worker.take("default").payload[1] == {"image": URLS[0], "candidate_labels": LABELS}


def test_without_options_both_clients_send_the_same_bulk_messages(calls: dict[str, Call], worker: StockWorker) -> None:
    taken: list[list[str]] = []

    def answer(kwargs: dict[str, Any]) -> dict[str, Any]:
        taken.append(kwargs["images"])
        return answer_all(kwargs)

    for name in ("classify_many", "async classify_many"):
        with worker.serving("bulk", answer):
            assert calls[name]() == list(range(70))
        assert [len(images) for images in taken] == [32, 32, 6]
        taken.clear()


@pytest.mark.parametrize("name", ["submit", "async submit"])
def test_each_option_reaches_the_job(name: str, calls: dict[str, Call], worker: StockWorker) -> None:
    calls[name](
        hypothesis_template="a {}", top_k=1, download_timeout=2.5, job_id="order-17", expires_in=60, queue="high"
    )

    message = worker.take("high")
    question = {"hypothesis_template": "a {}", "top_k": 1, "timeout": 2.5}
    assert message.payload[1] == {"image": URLS[0], "candidate_labels": LABELS, **question}
    assert message.headers["id"] == "order-17"
    assert message.headers["expires"] is not None
