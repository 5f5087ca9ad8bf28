"""A program that states the type of each public call; tests/nameshot/test_typing.py checks it against the wheel.

Type checkers read it, and nothing runs it. A line with an ignore comment states that there is an error, because a
checker reports every ignore comment that it does not need.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping
from typing import Any, assert_type

from nameshot import (
    Answer,
    AsyncClient,
    AsyncJob,
    Backlog,
    BulkOutcome,
    Client,
    ImageInfo,
    Job,
    JobFailed,
    NameshotError,
    Queue,
    QueueFull,
    Result,
    Score,
    State,
    Timings,
    __version__,
)

URL = "https://images.example/owl.jpg"
LABELS = ["fox", "owl"]


def blocking() -> None:
    """Make every call of `Client` and `Job`."""
    with Client() as client:
        assert_type(client, Client)
        job = client.submit(URL, LABELS, top_k=1, download_timeout=5, job_id="owl-1", expires_in=60.0, queue="high")
        assert_type(job, Job)
        assert_type(client.submit(URL, ("fox", "owl"), hypothesis_template=["A {}.", "One {}."]), Job)
        assert_type(client.classify(URL, LABELS, top_k=1, download_timeout=5, queue="high", timeout=30), Result)
        assert_type(client.submit_many([(URL, LABELS), {"url": URL, "labels": LABELS}]), list[Job])
        outcomes = client.classify_many([URL], LABELS, images_per_message=8, in_flight=4, ordered=True)
        assert_type(outcomes, Generator[BulkOutcome, None, None])
        assert_type(client.job("owl-1"), Job)
        assert_type(client.look_up("owl-1"), Answer)
        assert_type(client.wait_for("owl-1", 1.5), Answer)
        assert_type(client.cancel("owl-1"), bool)
        assert_type(client.forget("owl-1"), bool)
        assert_type(client.position("owl-1"), int | None)
        assert_type(client.backlog(), Backlog)
        assert_type(client.queue_depths(), dict[Queue, int])
        assert_type(job.id, str)
        assert_type(job.is_new, bool | None)
        assert_type(job.status(), State)
        assert_type(job.result(timeout=30), Result)
        assert_type(job.answer(None), Answer)
        assert_type(job.cancel(), bool)
        assert_type(job.position(), int | None)
        assert_type(job.forget(), bool)
        client.close()


async def with_asyncio(urls: AsyncIterator[str]) -> None:
    """Make every call of `AsyncClient` and `AsyncJob`."""
    async with AsyncClient(max_queue=10) as client:
        assert_type(client, AsyncClient)
        job = await client.submit(
            URL, LABELS, top_k=1, download_timeout=5, job_id="owl-1", expires_in=60.0, queue="high"
        )
        assert_type(job, AsyncJob)
        assert_type(await client.classify(URL, LABELS, top_k=1, queue="high", timeout=30), Result)
        assert_type(await client.submit_many([(URL, LABELS), {"url": URL, "labels": LABELS}]), list[AsyncJob])
        assert_type(client.classify_many(urls, LABELS, ordered=True), AsyncGenerator[BulkOutcome, None])
        assert_type(client.job("owl-1"), AsyncJob)
        assert_type(await client.look_up("owl-1"), Answer)
        assert_type(await client.wait_for("owl-1", 1.5), Answer)
        assert_type(await client.cancel("owl-1"), bool)
        assert_type(await client.forget("owl-1"), bool)
        assert_type(await client.position("owl-1"), int | None)
        assert_type(await client.backlog(), Backlog)
        assert_type(await client.queue_depths(), dict[Queue, int])
        assert_type(await job.status(), State)
        assert_type(await job.result(timeout=30), Result)
        assert_type(await job.answer(None), Answer)
        assert_type(await job.cancel(), bool)
        assert_type(await job.position(), int | None)
        assert_type(await job.forget(), bool)
        await client.close()


def answers(result: Result, outcome: BulkOutcome, answer: Answer, backlog: Backlog) -> None:
    """State the types of what calls return."""
    assert_type(result.ranking, list[Score])
    assert_type(result.best.label, str)
    assert_type(result.best.score, float)
    assert_type(result.image, ImageInfo)
    assert_type(result.timings_ms, Timings)
    assert_type(result.timings_ms.queued, float | None)
    assert_type(outcome.index, int)
    assert_type(outcome.result, Result | None)
    assert_type(outcome.error, JobFailed | None)
    assert_type(answer.state, State)
    assert_type(answer.value, dict[str, Any] | None)
    assert_type(answer.error, NameshotError | None)
    assert_type(backlog.waiting, Mapping[Queue, int])
    assert_type(backlog.total, int)
    assert_type(__version__, str)


def failures(failed: JobFailed, full: QueueFull) -> None:
    """State the types of the errors' attributes."""
    assert_type(failed.code, str)
    assert_type(failed.retryable, bool)
    assert_type(full.retry_after_s, float)


def mistakes(client: Client) -> None:
    """Make mistakes that a checker has to report."""
    client.submit(1, LABELS)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.submit(URL, 2)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.submit(URL, LABELS, top_k="three")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.submit(URL, LABELS, queue="urgent")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.submit(URL, LABELS, timeout=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.submit(URL, LABELS, colour="red")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.classify_many([URL], LABELS, job_id="x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.classify(URL, LABELS, colour="red")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    client.classify(URL, LABELS, top_k="three")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def mistakes_with_asyncio(client: AsyncClient) -> None:
    """Make mistakes in options that have no signature of their own, which a checker has to report."""
    await client.submit(URL, LABELS, colour="red")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await client.submit(URL, LABELS, queue="urgent")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.classify_many([URL], LABELS, job_id="x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
