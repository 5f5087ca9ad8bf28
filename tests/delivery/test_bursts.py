"""A burst of large images waits for the worker's few decoders, and that wait fails no job."""

from __future__ import annotations

import os

import pytest

from producer import Client
from tests.acceptance.origin import Origin
from tests.delivery.conftest import SendMany, StartWorker
from tests.images.slow_webp import slow_webp

LABELS = ["fox", "bear"]
TIMEOUT_S = 120
#: Together these decode for several times `JOB_TIMEOUT_S`, and each alone for a fraction of it.
BURST = 24
JOB_TIMEOUT_S = 3
SETTINGS = {
    "NAMESHOT_CONCURRENCY": "48",
    "NAMESHOT_JOB_TIMEOUT": str(JOB_TIMEOUT_S),
    "NAMESHOT_MAX_PIXELS": "10000000",
    "NAMESHOT_DRAIN_TIMEOUT": "0",
}


@pytest.fixture
def large(origin: Origin) -> list[str]:
    for number in range(BURST):
        origin.pages[f"/{number}.webp"] = ("image/webp", slow_webp(number))
    return [origin.url(f"/{number}.webp") for number in range(BURST)]


@pytest.mark.parametrize("decoder", ["process", pytest.param("thread", marks=pytest.mark.thorough)])
def test_every_job_of_a_burst_of_large_images_is_answered(
    decoder: str, start_worker: StartWorker, client: Client, large: list[str]
) -> None:
    start_worker("worker", NAMESHOT_DECODER=decoder, NAMESHOT_EMBEDDING_CACHE_BYTES="1000000", **SETTINGS)
    # Jobs with the same image wait for the one that decodes it.
    jobs = list(client.submit_many([(url, LABELS) for url in [*large, *large[:8]]]))

    high = client.submit(large[0], ["owl", "car"], queue="high")
    assert high.result(timeout=TIMEOUT_S).ranking
    assert sum(job.status() == "succeeded" for job in jobs) < BURST

    assert all(job.result(timeout=TIMEOUT_S).ranking for job in jobs)


@pytest.mark.thorough  # in `make test`, tests/embeddings and tests/concurrency pause the clocks of single images
def test_every_image_of_several_bulk_messages_of_large_images_is_answered(
    start_worker: StartWorker, send_many: SendMany, large: list[str]
) -> None:
    start_worker("worker", **SETTINGS)

    # Three messages share the threads for bulk messages, so the images of the last one also wait for a thread.
    messages = [send_many(large[:number]) for number in (BURST, BURST - 1, BURST - 2)]

    for message in messages:
        assert not [outcome for outcome in message.get(TIMEOUT_S)["outcomes"] if "error" in outcome]


def test_a_worker_ends_itself_if_an_image_of_a_bulk_message_hangs(
    start_worker: StartWorker, send_many: SendMany, origin: Origin
) -> None:
    settings = {"NAMESHOT_DECODER": "thread", "NULL_BURN_MS": "15000", "NAMESHOT_JOB_TIMEOUT": "1"}
    worker = start_worker("worker", NAMESHOT_MAX_BATCH="4", NAMESHOT_DRAIN_TIMEOUT="0", **settings)

    send_many([origin.url(f"/owl.png?{number}") for number in range(3)])

    assert worker.process.wait(TIMEOUT_S) == os.EX_SOFTWARE
    assert "jobs hang" in worker.log
