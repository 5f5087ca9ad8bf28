"""If a worker dies, freezes or hangs with jobs in hand, another worker answers them, once."""

import os
import signal
import time
from pathlib import Path

from producer import Client
from producer.contract.names import claim_key
from tests.acceptance.origin import Origin
from tests.client.stock_worker import StockWorker, result_for
from tests.delivery.conftest import REAL_LENGTHS, StartWorker
from tests.valkey_server import ValkeyServer
from worker.delivery.times import Times

LABELS = ["fox", "bear"]
TIMEOUT_S = 60
#: With this setting a worker does not measure its model at start.
UNMEASURED = {"NAMESHOT_MAX_BATCH": "4"}


def test_jobs_in_hand_of_a_killed_worker_are_answered_by_another(
    start_worker: StartWorker, client: Client, origin: Origin
) -> None:
    victim = start_worker("victim", **REAL_LENGTHS)
    jobs = [client.submit(origin.url("/held/owl.png"), LABELS) for _ in range(5)]
    for _ in jobs:
        assert origin.asked.acquire(timeout=TIMEOUT_S)

    victim.process.kill()
    victim.process.wait()
    start_worker("heir", **REAL_LENGTHS)
    origin.hold.set()

    assert all(job.result(timeout=TIMEOUT_S).ranking for job in jobs)


def test_if_a_worker_dies_right_after_storing_an_answer_the_claim_still_expires_with_the_answer(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer
) -> None:
    job = client.submit(origin.url("/owl.png"), LABELS)
    dead = StockWorker(own_valkey)
    dead.succeed(job.id, result_for(LABELS))  # and then neither acknowledged the message nor freed the id
    dead.close()

    start_worker("heir", NAMESHOT_RESULT_TTL="100")
    deadline_s = time.monotonic() + TIMEOUT_S
    with own_valkey.connect() as broker:
        while broker.ttl(claim_key("nameshot", job.id)) > 100:
            assert time.monotonic() < deadline_s


def test_a_frozen_worker_loses_its_job_and_can_neither_take_it_back_nor_change_its_answer(
    start_worker: StartWorker, client: Client, origin: Origin
) -> None:
    frozen = start_worker("frozen")
    job = client.submit(origin.url("/held/owl.png"), LABELS)
    assert origin.asked.acquire(timeout=TIMEOUT_S)
    frozen.process.send_signal(signal.SIGSTOP)
    start_worker("heir")
    assert origin.asked.acquire(timeout=TIMEOUT_S)
    origin.hold.set()
    answer = job.result(timeout=TIMEOUT_S)

    frozen.process.send_signal(signal.SIGCONT)
    for _ in range(20):  # the thawed worker takes its share of these
        assert client.classify(origin.url("/car.jpg"), LABELS, timeout=TIMEOUT_S).ranking

    assert job.result(timeout=TIMEOUT_S) == answer
    assert frozen.process.poll() is None


def test_a_job_that_takes_longer_than_a_lease_runs_once(
    start_worker: StartWorker, client: Client, origin: Origin, tmp_path: Path, times: Times
) -> None:
    executions = tmp_path / "executions"
    forward_ms = 1000 * (times.lease_s + 2 * times.round_s)
    settings = {"NULL_EXECUTIONS": str(executions), "NULL_FORWARD_MS": str(forward_ms), **UNMEASURED}
    for name in ("one", "other"):
        start_worker(name, **settings)

    job = client.submit(origin.url("/owl.png"), LABELS)

    assert job.result(timeout=TIMEOUT_S).ranking
    assert len(executions.read_text().splitlines()) == 2  # taken and run


def test_a_worker_whose_device_hangs_ends_itself_and_its_job_has_failed_by_its_deadline(
    start_worker: StartWorker, client: Client, origin: Origin
) -> None:
    hanging = start_worker("hanging", NULL_FORWARD_MS="600000", NAMESHOT_JOB_TIMEOUT="3", **UNMEASURED)
    job = client.submit(origin.url("/owl.png"), LABELS)

    assert hanging.process.wait(TIMEOUT_S) == os.EX_SOFTWARE
    assert "the device has been busy with one batch" in hanging.log

    assert job.status() == "failed"  # the job's deadline passed before the worker ended itself


def test_a_suspect_that_runs_alone_without_a_death_is_no_suspect_any_more(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer
) -> None:
    victims = [start_worker(f"victim-{number}") for number in range(2)]
    job = client.submit(origin.url("/held/owl.png"), LABELS)
    for _ in victims:
        assert origin.asked.acquire(timeout=TIMEOUT_S)
        [victim] = [each for each in victims if each.process.pid == holder(own_valkey)]
        victim.process.kill()
        victim.process.wait()

    heir = start_worker("heir")
    assert origin.asked.acquire(timeout=TIMEOUT_S)
    origin.hold.set()

    assert job.result(timeout=TIMEOUT_S).ranking
    assert "was in the hands of 2 workers that died: it runs alone" in heir.log
    heir.stop()
    with own_valkey.connect() as broker:
        assert not broker.exists("nameshot:suspects")


def holder(own_valkey: ValkeyServer) -> int:
    """Return the id of the process that holds the only message."""
    with own_valkey.connect() as broker:
        [in_flight] = broker.keys("nameshot:in-flight:*")
        return int(in_flight.decode().split("/")[-2])
