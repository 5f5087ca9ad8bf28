"""A worker that ends lets running jobs finish for a while, requeues the rest, and blames no job."""

import signal
import sys
import time

import pytest

from producer import Client
from producer.client.jobs import Job
from producer.processes.queued_signals import SAME_REQUEST_S
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


def test_a_job_that_outlasts_the_drain_timeout_is_requeued_and_another_worker_answers_it(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer
) -> None:
    worker = start_worker("leaving", NAMESHOT_DRAIN_TIMEOUT="1")
    job = hold_a_job(worker, client, origin)

    assert worker.stop(signal.SIGTERM) == 0
    assert_returned(own_valkey)

    origin.hold.set()
    start_worker("heir")
    assert job.result(timeout=TIMEOUT_S).ranking


def test_a_job_that_finishes_while_the_worker_drains_is_answered_and_acknowledged_and_not_requeued(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer
) -> None:
    worker = start_worker("leaving", NAMESHOT_DRAIN_TIMEOUT="60")
    job = hold_a_job(worker, client, origin)
    worker.process.send_signal(signal.SIGTERM)
    worker.wait_for_log("Warm shutdown")
    origin.hold.set()

    assert worker.process.wait(TIMEOUT_S) == 0
    assert job.result(timeout=TIMEOUT_S).ranking
    with own_valkey.connect() as broker:
        assert not broker.llen("nameshot.default")
        assert not broker.keys("nameshot:in-flight:*")


def test_a_second_sigterm_requeues_all_jobs_at_once(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer
) -> None:
    worker = start_worker("leaving", NAMESHOT_DRAIN_TIMEOUT="600")
    hold_a_job(worker, client, origin)
    worker.process.send_signal(signal.SIGTERM)
    worker.wait_for_log("Warm shutdown")

    while worker.process.poll() is None:  # the worker ignores a second signal for a moment: see the next test
        worker.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)

    assert worker.process.returncode == 0
    assert_returned(own_valkey)


def test_two_signals_at_the_same_moment_count_as_one(start_worker: StartWorker, client: Client, origin: Origin) -> None:
    """systemd signals every process of a service, and a launcher also forwards its signal to the worker."""
    worker = start_worker("leaving", NAMESHOT_DRAIN_TIMEOUT="600")
    job = hold_a_job(worker, client, origin)
    worker.process.send_signal(signal.SIGTERM)
    worker.process.send_signal(signal.SIGINT)  # the kernel could merge two equal signals
    worker.wait_for_log("Warm shutdown")
    origin.hold.set()

    assert job.result(timeout=TIMEOUT_S).ranking
    assert worker.process.wait(TIMEOUT_S) in (0, 1)  # Celery's statuses after SIGTERM and SIGINT


def test_sigquit_requeues_all_jobs_at_once(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer
) -> None:
    worker = start_worker("leaving", NAMESHOT_DRAIN_TIMEOUT="600")
    hold_a_job(worker, client, origin)

    assert worker.stop(signal.SIGQUIT) == 0
    assert not worker.is_ready  # its ready file is gone
    assert_returned(own_valkey)


#: Starts a program with the SIGHUP handling of a terminal or of nohup, whatever handling the tests inherited.
WITH_SIGHUP = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.{}); os.execv(sys.argv[1], sys.argv[1:])"


def with_sighup(disposition: str) -> tuple[str, ...]:
    """Return the prefix of a command that starts with this handling of SIGHUP."""
    return (sys.executable, "-c", WITH_SIGHUP.format(disposition))


def test_when_its_terminal_closes_a_worker_finishes_its_running_job(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer
) -> None:
    worker = start_worker("leaving", NAMESHOT_DRAIN_TIMEOUT="600", prefix=with_sighup("SIG_DFL"))
    job = hold_a_job(worker, client, origin)
    worker.process.send_signal(signal.SIGHUP)
    worker.wait_for_log("Warm shutdown")
    origin.hold.set()

    assert worker.process.wait(TIMEOUT_S) == 0
    assert job.result(timeout=TIMEOUT_S).ranking
    assert worker.log.count("ready: ") == 1
    with own_valkey.connect() as broker:
        assert not broker.keys("nameshot:in-flight:*")


def test_a_worker_that_nohup_started_goes_on_when_its_terminal_closes(
    start_worker: StartWorker, client: Client, origin: Origin
) -> None:
    worker = start_worker("staying", prefix=with_sighup("SIG_IGN"))
    worker.process.send_signal(signal.SIGHUP)

    assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking
    assert worker.stop(signal.SIGTERM) == 0
    assert worker.log.count("ready: ") == 1


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_worker_that_waits_for_its_broker_ends_at_a_signal(
    start_worker: StartWorker, own_valkey: ValkeyServer, number: signal.Signals
) -> None:
    own_valkey.stop()
    worker = start_worker("waiting", is_ready=False, prefix=with_sighup("SIG_DFL"))
    worker.wait_for_log("this worker takes no jobs until the broker works again")

    assert worker.stop(number) == 0
    assert "Restarting" not in worker.log


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT])
def test_a_second_signal_of_any_kind_requeues_all_jobs_at_once(
    first: signal.Signals,
    second: signal.Signals,
    start_worker: StartWorker,
    client: Client,
    origin: Origin,
    own_valkey: ValkeyServer,
) -> None:
    worker = start_worker("leaving", NAMESHOT_DRAIN_TIMEOUT="600", prefix=with_sighup("SIG_DFL"))
    job = hold_a_job(worker, client, origin)
    worker.process.send_signal(first)
    worker.wait_for_log("Warm shutdown")
    time.sleep(2 * SAME_REQUEST_S)
    worker.process.send_signal(second)

    assert worker.process.wait(TIMEOUT_S) == 0
    assert_returned(own_valkey)
    assert job.status() in ("queued", "running")


def test_a_worker_drains_on_sigterm_even_if_celery_remaps_it(
    start_worker: StartWorker, client: Client, origin: Origin
) -> None:
    worker = start_worker("leaving", NAMESHOT_DRAIN_TIMEOUT="600", REMAP_SIGTERM="SIGQUIT")
    job = hold_a_job(worker, client, origin)
    worker.process.send_signal(signal.SIGTERM)
    worker.wait_for_log("Warm shutdown")
    origin.hold.set()

    assert worker.process.wait(TIMEOUT_S) == 0
    assert job.result(timeout=TIMEOUT_S).ranking


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 1)])  # Celery's statuses
def test_an_idle_worker_ends_and_leaves_no_trace(
    start_worker: StartWorker, own_valkey: ValkeyServer, number: signal.Signals, status: int
) -> None:
    worker = start_worker("idle")

    assert worker.stop(number) == status
    with own_valkey.connect() as broker:
        assert set(broker.keys("nameshot:*")) <= {b"nameshot:looker"}  # this key expires within seconds
