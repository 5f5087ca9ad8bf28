"""Workers and clients send a script's text only to a server that lacks the script, and lose no message then."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
import redis

from producer import AsyncClient, Client
from producer.broker.dialling import connect
from producer.broker.scripting import eval_all
from producer.broker.urls import endpoint
from tests.acceptance.origin import Origin
from tests.chaos.takers import envelope
from tests.delivery.conftest import StartWorker
from tests.delivery.moves import OURS, QUEUE, acknowledge, take
from tests.valkey_server import ValkeyServer
from worker.delivery.scripts import TAKE

LABELS = ["owl", "car"]
URL = "https://images.example/owl.jpg"
TIMEOUT_S = 60
COUNT_UP = "return redis.call('INCR', KEYS[1])"


@pytest.fixture
def worker(valkey: ValkeyServer) -> redis.Redis:
    return connect(endpoint(valkey.url(0, "worker"), "the URL"))


def received_bytes(operator: redis.Redis) -> int:
    return int(operator.info("stats")["total_net_input_bytes"])


def test_a_take_sends_little_more_than_its_keys(valkey: ValkeyServer, worker: redis.Redis) -> None:
    with valkey.connect() as operator:
        operator.set(OURS.lease, 1)
        operator.lpush(QUEUE, *[envelope("a-job")] * 101)
        take(worker, "first")
        before = received_bytes(operator)
        for number in range(100):
            assert take(worker, f"{number:032}")

        assert (received_bytes(operator) - before) / 100 < 500 < len(TAKE) / 5


def test_a_submission_sends_little_more_than_its_message(valkey: ValkeyServer) -> None:
    with valkey.connect() as operator, Client(valkey.broker_url, valkey.result_backend) as client:
        client.submit(URL, LABELS)
        before = received_bytes(operator)
        for _ in range(100):
            client.submit(URL, LABELS)
        message = operator.lindex(QUEUE, 0)

        assert message
        assert (received_bytes(operator) - before) / 100 < len(message) + 1_200


def test_no_take_or_acknowledgement_is_lost_when_the_server_forgets_its_scripts(
    valkey: ValkeyServer, worker: redis.Redis
) -> None:
    with valkey.connect() as operator:
        operator.set(OURS.lease, 1)
        operator.lpush(QUEUE, *(envelope(f"job-{number}") for number in range(20)))
        for number in range(20):
            operator.script_flush()
            tag = take(worker, f"tag-{number}")[5]
            operator.script_flush()
            assert acknowledge(worker, tag) == 1

        assert not operator.exists(QUEUE, OURS.in_flight)
        assert operator.get(f"{QUEUE}:taken") == b"20"


def test_each_of_many_simultaneous_calls_runs_once_whether_or_not_the_server_has_the_script(
    valkey: ValkeyServer, worker: redis.Redis
) -> None:
    with valkey.connect() as operator:
        operator.script_flush()
    calls = [(1, "nameshot:embeddings:a")] * 3 + [(1, "nameshot.default:taken")] * 2
    for begin in (0, 2):
        with pytest.raises(redis.ResponseError, match=r"(?i)no permission"):
            eval_all(worker, COUNT_UP, calls)
        assert eval_all(worker, COUNT_UP, calls[3:]) == [2 * begin + 3, 2 * begin + 4]


def test_both_clients_submit_to_a_server_that_has_forgotten_its_scripts(valkey: ValkeyServer) -> None:
    async def submit() -> None:
        async with AsyncClient(valkey.broker_url, valkey.result_backend) as client:
            for _ in range(2):
                operator.script_flush()
                assert (await client.submit(URL, LABELS)).is_new

    with valkey.connect() as operator, Client(valkey.broker_url, valkey.result_backend) as client:
        for _ in range(2):
            operator.script_flush()
            assert client.submit(URL, LABELS).is_new
        asyncio.run(submit())

        assert operator.llen(QUEUE) == 4


def test_each_job_runs_once_while_the_server_forgets_its_scripts_again_and_again(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer, tmp_path: Path
) -> None:
    executions = tmp_path / "executions"
    worker = start_worker("forgotten", NULL_EXECUTIONS=str(executions))
    over = threading.Event()

    def forget() -> None:
        with own_valkey.connect() as operator:
            while not over.wait(0.002):
                operator.script_flush()

    forgetting = threading.Thread(target=forget)
    forgetting.start()
    try:
        jobs = client.submit_many([(origin.url("/owl.png"), LABELS)] * 300)
        assert all(job.result(TIMEOUT_S).ranking for job in jobs), worker.log
    finally:
        over.set()
        forgetting.join()

    runs = [line.split()[0] for line in executions.read_text().splitlines() if line.endswith("run")]
    assert sorted(runs) == sorted(job.id for job in jobs)


def test_a_worker_sends_no_script_again_that_the_server_has(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer
) -> None:
    start_worker("frugal")
    assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S)
    with own_valkey.connect() as operator:
        before = operator.info("commandstats")["cmdstat_eval"]["calls"]
        for job in client.submit_many([(origin.url("/owl.png"), LABELS)] * 50):
            assert job.result(TIMEOUT_S).ranking

        assert operator.info("commandstats")["cmdstat_eval"]["calls"] - before < 10  # other scripts, at first use
        assert operator.info("commandstats")["cmdstat_evalsha"]["calls"] > 100
