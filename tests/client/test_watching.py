"""`AnswerListener.watch` yields a job's states as it advances."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

from producer import AsyncClient
from producer.broker.connections import AsyncLink
from producer.client.configuration import configure
from producer.client.waiting import AnswerListener
from producer.operations.answers import State
from tests.client.stock_worker import StockWorker, result_for
from tests.client.test_aio import LABELS, URL, asynchronous, connected, soon, subscriptions
from tests.valkey_server import ValkeyServer


@asynccontextmanager
async def listening(valkey: ValkeyServer) -> AsyncIterator[tuple[AsyncClient, AnswerListener]]:
    config = configure(valkey.broker_url, valkey.result_backend)
    link = AsyncLink(config.broker, config.results)
    listener = AnswerListener(link, "nameshot")
    async with connected(valkey) as client:
        yield client, listener
    await listener.close()
    await link.close()


async def states_of(listener: AnswerListener, job_id: str) -> list[State]:
    return [answer.state async for answer in listener.watch(job_id)]


async def states_while_it_runs(
    listener: AnswerListener, worker: StockWorker, job_id: str, meanwhile: Callable[[], None] = lambda: None
) -> list[State]:
    """Watch a job that a worker runs; ``meanwhile`` happens while it is running."""
    seen: list[State] = []
    async for answer in listener.watch(job_id):
        seen.append(answer.state)
        if answer.state == "queued":
            await asyncio.to_thread(worker.take)
            await asyncio.to_thread(worker.start, job_id)
        elif answer.state == "running":
            await asyncio.to_thread(meanwhile)
            await asyncio.to_thread(worker.start, job_id)
            await asyncio.to_thread(worker.succeed, job_id, result_for(LABELS))
    return seen


@asynchronous
async def test_a_watch_yields_each_state_once_and_ends_with_the_answer(
    valkey: ValkeyServer, worker: StockWorker
) -> None:
    async with listening(valkey) as (client, listener):
        job = await client.submit(URL, LABELS)
        assert await states_while_it_runs(listener, worker, job.id) == ["queued", "running", "succeeded"]
        assert await soon(lambda: subscriptions(valkey) == 0)


@asynchronous
async def test_a_state_never_falls(valkey: ValkeyServer, worker: StockWorker) -> None:
    """The worker that ran the job is killed, and another runs it again."""
    async with listening(valkey) as (client, listener):
        job = await client.submit(URL, LABELS)

        def run_again() -> None:
            worker.app.backend.store_result(job.id, None, "RETRY")

        assert await states_while_it_runs(listener, worker, job.id, run_again) == ["queued", "running", "succeeded"]


@asynchronous
async def test_a_watch_of_an_answered_job_yields_its_answer_and_ends(valkey: ValkeyServer, worker: StockWorker) -> None:
    async with listening(valkey) as (client, listener):
        job = await client.submit(URL, LABELS)
        worker.succeed(job.id, result_for(LABELS))

        assert await states_of(listener, job.id) == ["succeeded"]
        assert await states_of(listener, "never-sent") == ["unknown"]


@asynchronous
async def test_a_reader_that_is_late_gets_only_the_newest_state(valkey: ValkeyServer, worker: StockWorker) -> None:
    async with listening(valkey) as (client, listener):
        job = await client.submit(URL, LABELS)
        async with aclosing(listener.watch(job.id)) as answers:
            assert (await anext(answers)).state == "queued"
            await asyncio.to_thread(worker.start, job.id)
            await asyncio.to_thread(worker.succeed, job.id, result_for(LABELS))
            await job.result(timeout=30)

            assert (await anext(answers)).state == "succeeded"


@asynchronous
async def test_watches_that_are_closed_early_leave_no_subscription(valkey: ValkeyServer) -> None:
    async with listening(valkey) as (client, listener):
        jobs = await client.submit_many([(URL, LABELS)] * 20)
        for job in jobs:
            async with aclosing(listener.watch(job.id)) as answers:
                assert (await anext(answers)).state == "queued"
        assert await soon(lambda: subscriptions(valkey) == 0)


@asynchronous
async def test_one_job_may_be_watched_and_awaited_at_once(valkey: ValkeyServer, worker: StockWorker) -> None:
    async with listening(valkey) as (client, listener):
        job = await client.submit(URL, LABELS)
        watches = [asyncio.create_task(states_of(listener, job.id)) for _ in range(3)]
        result = asyncio.create_task(job.result(timeout=30))
        assert await soon(lambda: subscriptions(valkey) == 1)
        await asyncio.to_thread(worker.succeed, job.id, result_for(LABELS))

        assert (await result).best.label == "fox"
        assert [(await watch)[-1] for watch in watches] == ["succeeded"] * 3
