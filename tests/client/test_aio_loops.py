"""One `AsyncClient` in several event loops, as in programs that call ``asyncio.run`` more than once."""

import asyncio
import gc
import threading

from producer import AsyncClient
from tests.client.stock_worker import StockWorker, result_for
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer

URL, LABELS = "https://images.example/owl.jpg", ["fox", "owl"]


def connections(valkey: ValkeyServer) -> int:
    with valkey.connect() as connection:
        return sum(each["name"] == "nameshot" for each in connection.client_list())


async def classify(client: AsyncClient, worker: StockWorker) -> str:
    job = await client.submit(URL, LABELS)
    waiting = asyncio.create_task(job.result(timeout=30))
    await asyncio.sleep(0)
    await asyncio.to_thread(worker.succeed, job.id, result_for(LABELS))
    return (await waiting).best.label


def test_one_client_works_in_two_calls_of_asyncio_run(valkey: ValkeyServer, worker: StockWorker) -> None:
    client = AsyncClient(valkey.broker_url, valkey.result_backend)
    gc.collect()  # clients of earlier tests may be left
    others = connections(valkey)

    for _ in range(3):
        assert asyncio.run(classify(client, worker)) == "fox"
        eventually(lambda: connections(valkey) <= others)  # each loop closes its connections when it ends


def test_one_client_works_in_the_loops_of_two_threads_at_once(valkey: ValkeyServer, worker: StockWorker) -> None:
    client = AsyncClient(valkey.broker_url, valkey.result_backend)
    barrier, seen = threading.Barrier(2, timeout=30), list[str]()

    async def use() -> None:
        seen.append(await classify(client, worker))
        await asyncio.to_thread(barrier.wait)  # both loops run and have connected
        seen.append(await classify(client, worker))

    threads = [threading.Thread(target=asyncio.run, args=(use(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert seen == ["fox"] * 4


def test_a_wait_that_an_ended_loop_abandoned_does_not_disturb_the_next_loop(
    valkey: ValkeyServer, worker: StockWorker
) -> None:
    client = AsyncClient(valkey.broker_url, valkey.result_backend)
    left = list[asyncio.Task[object]]()

    async def leave() -> str:
        job = await client.submit(URL, LABELS)
        left.append(asyncio.create_task(job.result()))
        await asyncio.sleep(0.1)
        return job.id

    async def read(job_id: str) -> str:
        async with client:
            return (await client.job(job_id).result(timeout=30)).best.label

    job_id = asyncio.run(leave())
    worker.succeed(job_id, result_for(LABELS))

    assert asyncio.run(read(job_id)) == "fox"
    assert left[0].cancelled()


def test_a_client_that_is_dropped_unclosed_leaves_no_connection(valkey: ValkeyServer) -> None:
    async def drop() -> None:
        client = AsyncClient(valkey.broker_url, valkey.result_backend)
        await client.queue_depths()
        del client
        gc.collect()
        while connections(valkey):  # noqa: ASYNC110 - a fact about the server has no event
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(drop(), 30))
