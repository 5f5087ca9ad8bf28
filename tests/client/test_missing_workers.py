"""A wait that times out says if no worker takes jobs, and finding that out does not prolong it."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from producer import AsyncClient, Client, ResultTimeout
from producer.contract.names import Queue, in_hand_key, lease_key, workers_key
from tests.client.stock_worker import NAME
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer

URL = "https://images.example/owl.jpg"
LABELS = ["fox", "owl"]

Wait = Callable[[str, float], ResultTimeout]


def wait_blocking(valkey: ValkeyServer, job_id: str, timeout: float) -> ResultTimeout:
    with Client(valkey.broker_url, valkey.result_backend) as client, pytest.raises(ResultTimeout) as caught:
        client.job(job_id).result(timeout)
    return caught.value


def wait_async(valkey: ValkeyServer, job_id: str, timeout: float) -> ResultTimeout:
    async def wait() -> ResultTimeout:
        async with AsyncClient(valkey.broker_url, valkey.result_backend) as client:
            with pytest.raises(ResultTimeout) as caught:
                await client.job(job_id).result(timeout)
            return caught.value

    return asyncio.run(wait())


@pytest.fixture(params=[wait_blocking, wait_async])
def wait(request: pytest.FixtureRequest, valkey: ValkeyServer) -> Wait:
    def run(job_id: str, timeout: float) -> ResultTimeout:
        error: ResultTimeout = request.param(valkey, job_id, timeout)
        return error

    return run


@pytest.fixture
def lease(valkey: ValkeyServer) -> str:
    """A running worker's lease; yields its key."""
    key = lease_key("nameshot", NAME)
    with valkey.connect() as connection:
        connection.sadd(workers_key("nameshot"), NAME)
        connection.set(key, "a-host/1")
    return key


def commands(valkey: ValkeyServer, name: str) -> int:
    with valkey.connect() as connection:
        return int(connection.info("commandstats").get(f"cmdstat_{name}", {"calls": 0})["calls"])


def test_a_wait_that_times_out_without_workers_says_so(wait: Wait, client: Client) -> None:
    job = client.submit(URL, LABELS)

    error = wait(job.id, 1.0)

    assert error.no_worker
    assert str(error) == (
        f"job {job.id} had no answer within 1 s, because no worker takes jobs from its queue; "
        "start one with `nameshot worker`, which runs the job unless its expires_in is over."
    )


def test_a_worker_whose_lease_has_expired_does_not_count(
    wait: Wait, client: Client, lease: str, valkey: ValkeyServer
) -> None:
    job = client.submit(URL, LABELS)
    with valkey.connect() as connection:
        connection.delete(lease)

    assert wait(job.id, 1.0).no_worker


@pytest.mark.usefixtures("lease")
def test_while_a_worker_runs_the_error_says_to_try_again(wait: Wait, client: Client) -> None:
    job = client.submit(URL, LABELS)

    error = wait(job.id, 1.0)

    assert not error.no_worker
    assert str(error) == f"job {job.id} had no answer within 1 s; it continues, so try again later."


@pytest.mark.parametrize(
    ("value", "queue", "no_worker"),
    [
        ("a-host/1 takes high,bulk", "default", True),
        ("a-host/1 takes nothing", "default", True),
        ("a-host/1 takes high,bulk: its device hangs", "default", True),
        ("a-host/1 takes high,bulk", "bulk", False),
        ("a-host/1", "default", False),  # the version before does not tell
        ("a-host/1: it takes high", "default", False),
        ("a-host/1 takes high,urgent", "default", False),  # a later version may have more to tell
    ],
)
def test_only_workers_that_take_from_the_jobs_own_queue_count(
    value: str, queue: Queue, no_worker: bool, wait: Wait, client: Client, lease: str, valkey: ValkeyServer
) -> None:
    job = client.submit(URL, LABELS, queue=queue)
    with valkey.connect() as connection:
        connection.set(lease, value)

    assert wait(job.id, 1.0).no_worker is no_worker


def test_a_job_that_a_worker_holds_lacks_no_worker_even_if_its_queue_does(
    wait: Wait, client: Client, lease: str, valkey: ValkeyServer
) -> None:
    job = client.submit(URL, LABELS)
    with valkey.connect() as connection:
        connection.set(lease, "a-host/1 takes nothing")
        connection.hset(in_hand_key("nameshot"), job.id, NAME)

    assert not wait(job.id, 1.0).no_worker


@pytest.mark.parametrize("timeout", [0, 0.3])
def test_short_waits_do_not_check_for_workers(timeout: float, wait: Wait, client: Client, valkey: ValkeyServer) -> None:
    job = client.submit(URL, LABELS)
    before = commands(valkey, "smembers")

    assert not wait(job.id, timeout).no_worker

    assert commands(valkey, "smembers") == before


def test_waits_that_end_together_share_one_check_for_workers(client: Client, valkey: ValkeyServer) -> None:
    jobs = client.submit_many([(URL, LABELS)] * 50)
    before = commands(valkey, "smembers")

    async def wait() -> list[BaseException | object]:
        async with AsyncClient(valkey.broker_url, valkey.result_backend) as waiting:
            return await asyncio.gather(
                *(waiting.job(job.id).result(timeout=1.5) for job in jobs), return_exceptions=True
            )

    errors = asyncio.run(wait())

    assert all(isinstance(error, ResultTimeout) for error in errors)
    # On a busy machine the check may last longer than the waits; all of them share it.
    assert len({error.no_worker for error in errors if isinstance(error, ResultTimeout)}) == 1
    assert commands(valkey, "smembers") == before + 1


def test_a_broker_that_does_not_answer_the_check_for_workers_prolongs_no_wait(tmp_path: Path) -> None:
    for name in ("queues", "answers"):
        (tmp_path / name).mkdir()
    with (
        ValkeyServer(tmp_path / "queues") as queues,
        ValkeyServer(tmp_path / "answers") as answers,
        Client(queues.broker_url, answers.result_backend) as client,
        ThreadPoolExecutor(1) as threads,
        answers.connect() as connection,
    ):
        job = client.submit(URL, LABELS)
        began_s = time.monotonic()
        waiting = threads.submit(job.result, timeout=2.0)
        eventually(lambda: bool(connection.pubsub_channels("*")))
        queues.freeze()

        with pytest.raises(ResultTimeout) as caught:
            waiting.result()

        assert not caught.value.no_worker
        assert time.monotonic() - began_s < 3.0
        queues.thaw()
