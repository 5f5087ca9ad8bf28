"""How a worker ends: what runs may finish for a while, the rest goes back, and nobody is blamed for it."""

import signal
import time

import pytest

from producer import Client
from producer.jobs import Job
from tests.acceptance.origin import Origin
from tests.acceptance.worker_process import Worker
from tests.delivery.conftest import StartWorker
from tests.valkey_server import ValkeyServer

LABELS = ["fox", "bear"]
TIMEOUT_S = 60


def hold_a_job(worker: Worker, client: Client, origin: Origin) -> Job:
    assert worker.process.poll() is None
    job = client.submit(origin.url("/held/owl.png"), LABELS)
    assert origin.asked.acquire(timeout=TIMEOUT_S)
    return job


def assert_returned(own_valkey: ValkeyServer) -> None:
    with own_valkey.connect() as broker:
        assert broker.llen("nameshot.default") == 1
        assert broker.keys("nameshot:in-flight:*") == []
        assert not broker.exists("nameshot:suspects", "nameshot:workers")


def test_a_job_that_outlasts_the_drain_timeout_goes_back_to_its_queue_and_is_answered_elsewhere(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer
) -> None:
    worker = start_worker("leaving", NAMESHOT_DRAIN_TIMEOUT="1")
    job = hold_a_job(worker, client, origin)

    assert worker.stop(signal.SIGTERM) == 0
    assert_returned(own_valkey)

    origin.hold.set()
    start_worker("heir")
    assert job.result(timeout=TIMEOUT_S).ranking


def test_a_job_that_finishes_while_the_worker_drains_is_answered_acknowledged_and_not_returned(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer
) -> None:
    worker = start_worker("leaving", NAMESHOT_DRAIN_TIMEOUT="60")
    job = hold_a_job(worker, client, origin)
    worker.process.send_signal(signal.SIGTERM)
    while "Warm shutdown" not in worker.log:
        assert worker.process.poll() is None, worker.log
    origin.hold.set()

    assert worker.process.wait(TIMEOUT_S) == 0
    assert job.result(timeout=TIMEOUT_S).ranking
    with own_valkey.connect() as broker:
        assert not broker.llen("nameshot.default")
        assert not broker.keys("nameshot:in-flight:*")


def test_a_second_sigterm_returns_everything_at_once(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer
) -> None:
    worker = start_worker("leaving", NAMESHOT_DRAIN_TIMEOUT="600")
    hold_a_job(worker, client, origin)
    worker.process.send_signal(signal.SIGTERM)
    while "Warm shutdown" not in worker.log:
        assert worker.process.poll() is None, worker.log

    while worker.process.poll() is None:  # a second one is not heard at once: see the next test
        worker.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)

    assert worker.process.returncode == 0
    assert_returned(own_valkey)


def test_one_stop_that_arrives_twice_at_once_is_no_second_one(
    start_worker: StartWorker, client: Client, origin: Origin
) -> None:
    """systemd signals every process of a service, and a launcher among them passes its signal on."""
    worker = start_worker("leaving", NAMESHOT_DRAIN_TIMEOUT="600")
    job = hold_a_job(worker, client, origin)
    worker.process.send_signal(signal.SIGTERM)
    worker.process.send_signal(signal.SIGINT)  # two of the same could arrive as one
    while "Warm shutdown" not in worker.log:
        assert worker.process.poll() is None, worker.log
    origin.hold.set()

    assert job.result(timeout=TIMEOUT_S).ranking
    assert worker.process.wait(TIMEOUT_S) in (0, 1)  # Celery's own statuses


def test_sigquit_returns_everything_at_once(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer
) -> None:
    worker = start_worker("leaving", NAMESHOT_DRAIN_TIMEOUT="600")
    hold_a_job(worker, client, origin)

    assert worker.stop(signal.SIGQUIT) == 0
    assert_returned(own_valkey)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 1)])  # Celery's own statuses
def test_an_idle_worker_ends_and_leaves_no_trace(
    start_worker: StartWorker, own_valkey: ValkeyServer, number: signal.Signals, status: int
) -> None:
    worker = start_worker("idle")

    assert worker.stop(number) == status
    with own_valkey.connect() as broker:
        assert set(broker.keys("nameshot:*")) <= {b"nameshot:looker"}  # it expires within seconds
