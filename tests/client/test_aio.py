"""`AsyncClient` has the methods of `Client`, as coroutines, and never blocks the event loop."""

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from itertools import count
from typing import Any

import pytest

from producer import (
    AsyncClient,
    BrokerUnavailable,
    InvalidJob,
    JobCancelled,
    JobConflict,
    JobFailed,
    JobNotFound,
    QueueFull,
    ResultTimeout,
)
from tests.client.stock_worker import StockWorker, result_for
from tests.valkey_server import ValkeyServer

URL = "https://images.example/owl.jpg"
LABELS = ["fox", "owl"]


def asynchronous(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a coroutine test in a loop of its own."""

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        asyncio.run(test(**fixtures))

    return run


def connected(valkey: ValkeyServer, **options: Any) -> AsyncClient:
    return AsyncClient(valkey.broker_url, valkey.result_backend, **options)


def answer_all(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"outcomes": [result_for(kwargs["candidate_labels"]) for _ in kwargs["images"]]}


def subscriptions(valkey: ValkeyServer) -> int:
    with valkey.connect() as connection:
        return len(connection.pubsub_channels("*"))


async def soon(fact: Callable[[], bool]) -> bool:
    deadline_s = time.monotonic() + 30
    while not fact() and time.monotonic() < deadline_s:  # noqa: ASYNC110 - a fact about the server has no event
        await asyncio.sleep(0.01)
    return fact()


@asynchronous
async def test_a_job_is_submitted_answered_and_read(valkey: ValkeyServer, worker: StockWorker) -> None:
    async with connected(valkey) as client:
        job = await client.submit(URL, LABELS)
        assert await job.status() == "queued"
        assert await client.queue_depths() == {"high": 0, "default": 1, "bulk": 0}
        worker.succeed(job.id, result_for(LABELS))

        assert (await job.result(timeout=10)).best.label == "fox"
        assert await client.job(job.id).status() == "succeeded"
        assert await job.cancel() is False


@asynchronous
async def test_an_answer_wakes_the_waiting_task(valkey: ValkeyServer, worker: StockWorker) -> None:
    async with connected(valkey) as client:
        with worker.serving("default", lambda kwargs: result_for(kwargs["candidate_labels"])):
            result = await client.classify(URL, LABELS, timeout=10)

    assert result.best.label == "fox"


@asynchronous
async def test_hundreds_of_tasks_may_await_at_once(valkey: ValkeyServer, worker: StockWorker) -> None:
    async with connected(valkey) as client:
        jobs = await client.submit_many([(URL, LABELS)] * 300)
        waiting = [asyncio.create_task(job.result(timeout=60)) for job in jobs]
        assert await soon(lambda: subscriptions(valkey) == 300)
        for job in jobs:
            await asyncio.to_thread(worker.succeed, job.id, result_for(LABELS))
        results = await asyncio.gather(*waiting)

        assert len(results) == 300
        assert await soon(lambda: subscriptions(valkey) == 0)
        with valkey.connect() as connection:
            assert sum(each["name"] == "nameshot" for each in connection.client_list()) <= 2 * 32 + 1


@asynchronous
async def test_a_thousand_tasks_may_submit_at_once(valkey: ValkeyServer) -> None:
    async with connected(valkey) as client:
        jobs = await asyncio.gather(*(client.submit(URL, LABELS, job_id=f"order-{n % 500}") for n in range(1_000)))

        assert len(set(jobs)) == 500
        assert (await client.queue_depths())["default"] == 500


@asynchronous
async def test_asyncio_client_raises_the_errors_of_the_blocking_client(
    valkey: ValkeyServer, worker: StockWorker
) -> None:
    async with connected(valkey, max_queue=3) as client:
        with pytest.raises(InvalidJob):
            await client.submit("owl.jpg", LABELS)
        with pytest.raises(InvalidJob):
            client.classify_many([], [])
        with pytest.raises(InvalidJob, match=r"jobs\[1\]"):
            await client.submit_many([(URL, LABELS), ("owl.jpg", LABELS)])
        cancelled = await client.submit(URL, LABELS, job_id="order-17")
        with pytest.raises(JobConflict):
            await client.submit(URL, ["owl"], job_id="order-17")
        failed = await client.submit(URL, LABELS)
        with pytest.raises(QueueFull):
            await client.submit(URL, LABELS)
        with pytest.raises(ResultTimeout):
            await failed.result(timeout=0.05)
        worker.fail(failed.id, JobFailed("empty", "the body has no bytes."))
        with pytest.raises(JobFailed):
            await failed.result()
        assert (await failed.answer()).state == "failed"
        assert await cancelled.cancel() is True
        with pytest.raises(JobCancelled):
            await cancelled.result()
        with pytest.raises(JobNotFound):
            await client.job("never-sent").result()


@asynchronous
async def test_a_cancelled_task_leaves_no_subscription(valkey: ValkeyServer) -> None:
    async with connected(valkey) as client:
        waiting = asyncio.create_task((await client.submit(URL, LABELS)).result())
        assert await soon(lambda: subscriptions(valkey) == 1)
        waiting.cancel()

        assert await soon(lambda: subscriptions(valkey) == 0)
        with pytest.raises(asyncio.CancelledError):
            await waiting


@asynchronous
async def test_a_task_can_be_cancelled_at_any_step_of_a_call(valkey: ValkeyServer) -> None:
    # These cancel during connecting, the handshake, sending and reading; a busy machine needs more steps for each.
    for steps in range(1, 60):
        async with connected(valkey) as client:
            submitting = asyncio.create_task(client.submit(URL, LABELS))
            for _ in range(steps):
                await asyncio.sleep(0)
            if submitting.done():
                break
            submitting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await submitting


@asynchronous
async def test_the_event_loop_goes_on_while_redis_hangs(own_valkey: ValkeyServer) -> None:
    longest_gap_s = 0.0

    async def tick() -> None:
        nonlocal longest_gap_s
        while True:
            before_s = time.monotonic()
            await asyncio.sleep(0.01)
            longest_gap_s = max(longest_gap_s, time.monotonic() - before_s)

    async with connected(own_valkey) as client:
        await client.submit(URL, LABELS)
        ticking = asyncio.create_task(tick())
        own_valkey.freeze()
        started_s = time.monotonic()
        with pytest.raises(BrokerUnavailable, match="may have been queued"):
            await client.submit(URL, LABELS)

        assert 1 < time.monotonic() - started_s < 3
        assert longest_gap_s < 0.5
        ticking.cancel()


@asynchronous
async def test_an_unreachable_broker_is_reported_at_once(closed_url: str) -> None:
    async with AsyncClient(closed_url, closed_url) as client:
        for call in (client.submit(URL, LABELS), client.job("a").status(), client.job("a").cancel()):
            with pytest.raises(BrokerUnavailable, match="cannot be reached") as caught:
                await call
            assert "s3cret" not in str(caught.value)


@asynchronous
async def test_waiting_survives_a_restart(own_valkey: ValkeyServer) -> None:
    async with connected(own_valkey) as client:
        job = await client.submit(URL, LABELS)
        waiting = asyncio.create_task(job.result(timeout=30))
        assert await soon(lambda: subscriptions(own_valkey) == 1)
        own_valkey.stop()
        own_valkey.start()
        worker = StockWorker(own_valkey)
        worker.succeed(job.id, result_for(LABELS))
        worker.close()

        assert (await waiting).best.label == "fox"


@asynchronous
async def test_closing_ends_every_wait(valkey: ValkeyServer) -> None:
    client = connected(valkey)
    waiting = asyncio.create_task((await client.submit(URL, LABELS)).result())
    assert await soon(lambda: subscriptions(valkey) == 1)
    await client.close()

    with pytest.raises(BrokerUnavailable, match="the client was closed"):
        await waiting


@asynchronous
async def test_classify_many_yields_an_outcome_for_each_image(valkey: ValkeyServer, worker: StockWorker) -> None:
    given = [*(f"https://images.example/{number}.jpg" for number in range(200)), "bad"]
    async with connected(valkey) as client:
        with worker.serving("bulk", answer_all):
            unordered = [outcome async for outcome in client.classify_many(given, LABELS)]
            ordered = [outcome async for outcome in client.classify_many(given, LABELS, ordered=True)]

    assert sorted((outcome.index, outcome.image) for outcome in unordered) == list(enumerate(given))
    assert [outcome.image for outcome in ordered] == given
    assert [outcome.ok for outcome in ordered] == [True] * 200 + [False]


@asynchronous
async def test_an_endless_async_source_is_read_within_bounds_and_can_be_abandoned(
    valkey: ValkeyServer, worker: StockWorker
) -> None:
    read = 0

    async def source() -> AsyncIterator[str]:
        nonlocal read
        for number in count():
            read += 1
            yield f"https://images.example/{number}.jpg"

    seen = 0
    async with connected(valkey) as client:
        with worker.serving("bulk", answer_all):
            async with aclosing(client.classify_many(source(), LABELS, in_flight=4)) as stream:
                async for _ in stream:
                    seen += 1
                    assert read - seen <= 5 * 32  # four messages in flight, and one that waits until it may be sent
                    if seen == 500:
                        break

        assert await soon(lambda: subscriptions(valkey) == 0)


@asynchronous
async def test_a_slow_source_delays_no_outcome_that_is_ready(valkey: ValkeyServer, worker: StockWorker) -> None:
    more = asyncio.Event()

    async def source() -> AsyncIterator[str]:
        yield URL
        await more.wait()
        yield URL

    async with connected(valkey) as client:
        with worker.serving("bulk", answer_all):
            stream = client.classify_many(source(), LABELS, images_per_message=1)
            first = await anext(stream)
            more.set()
            rest = [outcome async for outcome in stream]

    assert (first.index, [outcome.index for outcome in rest]) == (0, [1])


@asynchronous
async def test_closing_classify_many_early_cancels_the_unfinished_jobs(
    valkey: ValkeyServer, worker: StockWorker
) -> None:
    async with connected(valkey) as client:
        async with aclosing(client.classify_many([URL] * 10, LABELS, images_per_message=1, in_flight=3)) as stream:
            first = asyncio.ensure_future(anext(stream))
            assert await soon(lambda: subscriptions(valkey) == 3)
            message = await asyncio.to_thread(worker.take, "bulk")
            worker.succeed(message.headers["id"], {"outcomes": [result_for(LABELS)]})
            await first

        depth = (await client.queue_depths())["bulk"]
        left = [(await asyncio.to_thread(worker.take, "bulk")).headers["id"] for _ in range(depth)]
        assert 2 <= len(left) <= 3
        assert {await client.job(job_id).status() for job_id in left} == {"cancelled"}


@asynchronous
async def test_an_exception_in_the_source_reaches_the_caller_and_cancels_what_was_sent(valkey: ValkeyServer) -> None:
    async def source() -> AsyncIterator[str]:
        yield URL
        raise LookupError("no more pages")

    async with connected(valkey) as client:
        with pytest.raises(LookupError):
            async for _ in client.classify_many(source(), LABELS, images_per_message=1):
                pass

        assert (await client.queue_depths())["bulk"] == 1  # it has an answer (cancelled), so a worker drops it


@asynchronous
async def test_a_full_queue_slows_the_stream(
    valkey: ValkeyServer, worker: StockWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.client.aio_bulk.RETRY_PAUSE_S", 0.02)
    async with connected(valkey, max_queue=2) as client:
        with worker.serving("bulk", answer_all):
            stream = client.classify_many([URL] * 20, LABELS, images_per_message=1)
            assert len([outcome async for outcome in stream]) == 20


@pytest.mark.timeout(20)
@asynchronous
async def test_a_redis_that_was_never_reachable_ends_the_stream_at_once(closed_url: str) -> None:
    async with AsyncClient(closed_url, closed_url) as client:
        with pytest.raises(BrokerUnavailable):
            async for _ in client.classify_many([URL], LABELS):
                pass
