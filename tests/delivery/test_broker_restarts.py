"""After an outage of Redis, workers go on by themselves and store the answers of jobs that they finished meanwhile."""

import subprocess
import threading
from collections import Counter
from pathlib import Path

import pytest
import redis

from producer import Client
from producer.errors import BrokerUnavailable
from tests.acceptance.origin import Origin
from tests.delivery.conftest import StartWorker
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer
from worker.delivery.times import Times

LABELS = ["fox", "bear"]
TIMEOUT_S = 90
#: The threads of each worker.
THREADS = 4


def in_flight(broker: redis.Redis) -> int:
    return sum(broker.hlen(key) for key in broker.keys("nameshot:in-flight:*"))


def test_a_job_runs_once_during_a_restart_of_redis_and_after_three_restarts_nothing_is_in_hand(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer
) -> None:
    worker = start_worker("survivor")
    for _ in range(3):
        origin.hold.clear()
        job = client.submit(origin.url("/held/owl.png"), LABELS)
        assert origin.asked.acquire(timeout=TIMEOUT_S)
        own_valkey.stop()
        own_valkey.start()
        origin.hold.set()
        assert job.result(timeout=TIMEOUT_S).ranking
        assert not origin.asked.acquire(blocking=False)

    assert worker.stop() == 0
    with own_valkey.connect() as broker:
        assert not in_flight(broker)
        assert not broker.llen("nameshot.default")


def test_jobs_that_finished_while_redis_was_down_are_answered_once_and_their_threads_are_free_again(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer, outage_s: float, tmp_path: Path
) -> None:
    executions = tmp_path / "executions"
    for name in ("one", "other"):
        start_worker(name, NAMESHOT_CONCURRENCY=str(THREADS), NULL_EXECUTIONS=str(executions))
    jobs = [client.submit(origin.url("/held/owl.png"), LABELS) for _ in range(3 * THREADS)]
    for _ in range(2 * THREADS):
        assert origin.asked.acquire(timeout=TIMEOUT_S)
    own_valkey.stop()
    origin.hold.set()
    with pytest.raises(BrokerUnavailable):
        client.submit(origin.url("/car.jpg"), LABELS)
    threading.Event().wait(outage_s)  # the outage itself is what is tested
    own_valkey.start()

    for job in jobs:
        assert job.result(timeout=TIMEOUT_S).ranking
    with own_valkey.connect() as broker:
        eventually(lambda: not in_flight(broker))
    for job in list(client.submit_many([(origin.url("/car.jpg"), LABELS)] * 4 * THREADS)):
        assert job.result(timeout=TIMEOUT_S).ranking
    runs = Counter(line.split()[0] for line in executions.read_text().splitlines() if line.endswith("run"))
    assert set(runs.values()) == {1}
    assert len(runs) == 7 * THREADS


def test_a_worker_outlives_a_redis_that_keeps_its_port_open_and_answers_nothing(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer, times: Times
) -> None:
    worker = start_worker("survivor")
    own_valkey.freeze()
    with pytest.raises(subprocess.TimeoutExpired):  # longer than an event loop may be silent
        worker.process.wait(times.loop_silent_s + 4 * times.round_s)
    own_valkey.stop()
    own_valkey.start()

    assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking


def test_workers_consume_again_after_redis_lost_everything(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer
) -> None:
    start_worker("survivor")
    with own_valkey.connect() as broker:
        broker.flushall()
        broker.script_flush()

    assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking
