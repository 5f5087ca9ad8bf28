"""Images that stall or decode slowly occupy places, but jobs of more important queues are answered meanwhile."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import pytest
from celery import Celery
from celery.result import AsyncResult
from PIL import Image

from producer import Client
from tests.acceptance.origin import Origin
from tests.delivery.conftest import StartWorker
from tests.valkey_server import ValkeyServer

LABELS = ["fox", "bear"]
#: Shorter than the origin delays ``/held/`` pictures, and longer than any other job here takes.
TIMEOUT_S = 20
MOST_IMAGES = 64
#: A worker's default on a CPU.
CONCURRENCY = 24
PATIENT = {
    "NAMESHOT_CONCURRENCY": str(CONCURRENCY),
    "NAMESHOT_FETCH_TIMEOUT": "60",
    "NAMESHOT_MAX_BATCH": "8",
    "NAMESHOT_DRAIN_TIMEOUT": "0",
}

SendMany = Callable[..., AsyncResult]


@pytest.fixture
def send_many(own_valkey: ValkeyServer) -> Iterator[SendMany]:
    """Send one bulk message."""
    with Celery(broker=own_valkey.broker_url, backend=own_valkey.result_backend, set_as_current=False) as plain:

        def send(urls: list[str], queue: str = "bulk") -> AsyncResult:
            arguments = {"images": urls, "candidate_labels": LABELS}
            return plain.send_task("nameshot.classify_many", kwargs=arguments, queue=f"nameshot.{queue}")

        yield send


@pytest.fixture
def worker(start_worker: StartWorker) -> None:
    start_worker("worker", **PATIENT)


def stalled(origin: Origin, count: int, message: str = "") -> list[str]:
    """Return distinct URLs, which the origin answers only once `Origin.hold` is set."""
    return [origin.url(f"/held/owl.png?{message}{number}") for number in range(count)]


def pictures(origin: Origin, count: int) -> list[str]:
    return [origin.url(f"/owl.png?{number}") for number in range(count)]


def await_asked(origin: Origin, count: int) -> None:
    """Return once ``count`` requests have reached the origin."""
    for _ in range(count):
        assert origin.asked.acquire(timeout=TIMEOUT_S)


@pytest.mark.usefixtures("worker")
def test_one_stalled_image_of_a_bulk_message_holds_one_place(
    client: Client, send_many: SendMany, origin: Origin
) -> None:
    bulk = send_many(stalled(origin, 1) + pictures(origin, MOST_IMAGES - 1))
    await_asked(origin, MOST_IMAGES)

    jobs = [client.submit(url, LABELS, queue="bulk") for url in pictures(origin, 2 * CONCURRENCY)]
    assert client.submit(origin.url("/car.jpg"), LABELS, queue="high").result(timeout=TIMEOUT_S).ranking
    assert all(job.result(timeout=TIMEOUT_S).ranking for job in jobs)

    assert not bulk.ready()
    origin.hold.set()
    assert len(bulk.get(TIMEOUT_S)["outcomes"]) == MOST_IMAGES


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("messages", [1, 3])
@pytest.mark.parametrize("queue", ["high", "default"])
def test_bulk_messages_in_which_every_image_stalls_delay_no_other_queue(
    queue: str, messages: int, client: Client, send_many: SendMany, origin: Origin
) -> None:
    sent = [send_many(stalled(origin, MOST_IMAGES, f"{number}-")) for number in range(messages)]
    await_asked(origin, CONCURRENCY - 2)

    jobs = [client.submit(url, LABELS, queue=queue) for url in pictures(origin, 10)]  # type: ignore[arg-type]  # a parameter
    assert all(job.result(timeout=TIMEOUT_S).ranking for job in jobs)

    assert not any(bulk.ready() for bulk in sent)


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("queue", ["bulk", "default"])
def test_single_jobs_that_all_stall_do_not_delay_a_more_important_queue(
    queue: str, client: Client, origin: Origin
) -> None:
    held = [client.submit(url, LABELS, queue=queue) for url in stalled(origin, 2 * CONCURRENCY)]  # type: ignore[arg-type]  # a parameter
    await_asked(origin, CONCURRENCY - 2)

    assert client.submit(origin.url("/car.jpg"), LABELS, queue="high").result(timeout=TIMEOUT_S).ranking

    assert not any(job.status() == "succeeded" for job in held)


@pytest.mark.usefixtures("worker")
def test_a_bulk_message_of_the_same_queue_leaves_a_place_to_a_single_job(
    client: Client, send_many: SendMany, origin: Origin
) -> None:
    bulk = send_many(stalled(origin, MOST_IMAGES), queue="high")
    await_asked(origin, CONCURRENCY - 2)

    assert client.submit(origin.url("/car.jpg"), LABELS, queue="high").result(timeout=TIMEOUT_S).ranking

    assert not bulk.ready()


def slow_webp(number: int) -> bytes:
    """Return a file of 36 bytes that decodes to ten million pixels; each number gives another file."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (number, 0, 0)).save(file, "WEBP", lossless=True, quality=0, method=0)
    data = bytearray(file.getvalue())
    # A single colour takes no bits per pixel, so the file stays valid with a larger width and height, 14 bits each.
    at = data.index(b"VP8L") + 9
    head = int.from_bytes(data[at : at + 4], "little") >> 28 << 28 | 2_799 << 14 | 3_499
    data[at : at + 4] = head.to_bytes(4, "little")
    return bytes(data)


@pytest.mark.parametrize("decoder", ["process", "thread"])
def test_a_bulk_message_of_images_that_decode_slowly_delays_no_other_queue(
    decoder: str, start_worker: StartWorker, client: Client, send_many: SendMany, origin: Origin
) -> None:
    for number in range(MOST_IMAGES):
        origin.pages[f"/{number}.webp"] = ("image/webp", slow_webp(number))
    start_worker("worker", NAMESHOT_DECODER=decoder, NAMESHOT_MAX_PIXELS="10000000", **PATIENT)
    urls = [origin.url(f"/{number}.webp") for number in range(MOST_IMAGES)]
    bulk = [send_many(urls), send_many([f"{url}?again" for url in urls])]
    await_asked(origin, CONCURRENCY - 2)

    for queue in ("high", "default"):
        job = client.submit(origin.url("/car.jpg"), [*LABELS, queue], queue=queue)
        assert job.result(timeout=TIMEOUT_S).ranking
        assert not any(message.ready() for message in bulk), queue
