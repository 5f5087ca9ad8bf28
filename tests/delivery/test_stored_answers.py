"""The result backend is away while the broker is not: no job loses its answer, and none gets a wrong one."""

import time
from collections.abc import Iterator

import pytest

from producer import Client, JobFailed
from tests.acceptance.origin import Origin
from tests.acceptance.worker_process import Worker
from tests.delivery.conftest import StartWorker
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer

LABELS = ["fox", "bear"]
TIMEOUT_S = 60
#: Tried again for tens of milliseconds instead of a minute and a half.
IMPATIENT = {"NULL_STORE_RETRIES": "3"}
GIVEN_UP = "goes back to its queue: the result backend is away"


@pytest.fixture
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """A second server, for the answers alone."""
    with ValkeyServer(tmp_path_factory.mktemp("answers")) as server:
        yield server


@pytest.fixture
def client(own_valkey: ValkeyServer, answers: ValkeyServer) -> Iterator[Client]:
    with Client(own_valkey.broker_url, answers.result_backend) as client:
        yield client


def wait_for(worker: Worker, line: str, times: int = 1) -> None:
    while worker.log.count(line) < times:
        assert worker.process.poll() is None, worker.log
        time.sleep(0.01)


def assert_nothing_is_left(broker: ValkeyServer) -> None:
    with broker.connect() as connection:
        eventually(lambda: not (connection.keys("nameshot:in-flight:*") or connection.llen("nameshot.default")))


def test_a_job_whose_answer_cannot_be_stored_goes_back_to_its_queue_and_is_answered_later(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer, answers: ValkeyServer
) -> None:
    worker = start_worker("patient", NAMESHOT_RESULT_BACKEND=answers.url(1, "worker"), **IMPATIENT)
    job = client.submit(origin.url("/held/owl.png"), LABELS)
    assert origin.asked.acquire(timeout=TIMEOUT_S)
    answers.stop()
    origin.hold.set()
    wait_for(worker, GIVEN_UP, times=2)  # finished and not stored; taken again and not begun
    answers.start()

    assert job.result(timeout=TIMEOUT_S).ranking
    assert_nothing_is_left(own_valkey)
    assert "Traceback" not in worker.log


def test_a_failure_that_cannot_be_stored_is_stored_later_and_stays_the_same(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer, answers: ValkeyServer
) -> None:
    worker = start_worker("patient", NAMESHOT_RESULT_BACKEND=answers.url(1, "worker"), **IMPATIENT)
    job = client.submit(origin.url("/held/nothing.png"), LABELS)
    assert origin.asked.acquire(timeout=TIMEOUT_S)
    answers.stop()
    origin.hold.set()
    wait_for(worker, GIVEN_UP)
    answers.start()

    with pytest.raises(JobFailed) as failed:
        job.result(timeout=TIMEOUT_S)
    assert failed.value.code == "http_status"
    assert_nothing_is_left(own_valkey)


def test_a_result_backend_without_memory_is_waited_for(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer, answers: ValkeyServer
) -> None:
    worker = start_worker("patient", NAMESHOT_RESULT_BACKEND=answers.url(1, "worker"))
    job = client.submit(origin.url("/held/owl.png"), LABELS)
    assert origin.asked.acquire(timeout=TIMEOUT_S)
    with answers.connect() as connection:
        connection.config_set("maxmemory", 1)
        origin.hold.set()
        wait_for(worker, "the result backend does not take answers")
        connection.config_set("maxmemory", 0)

    assert job.result(timeout=TIMEOUT_S).ranking
    assert_nothing_is_left(own_valkey)


def test_a_suspect_stays_one_until_its_answer_is_stored(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer, answers: ValkeyServer
) -> None:
    job = client.submit(origin.url("/held/owl.png"), LABELS)
    with own_valkey.connect() as broker:
        broker.hset("nameshot:suspects", job.id, 1)  # as a worker leaves it that died with the job in hand
        worker = start_worker("careful", NAMESHOT_RESULT_BACKEND=answers.url(1, "worker"), **IMPATIENT)
        assert origin.asked.acquire(timeout=TIMEOUT_S)
        answers.stop()
        origin.hold.set()
        wait_for(worker, GIVEN_UP)
        assert broker.hget("nameshot:suspects", job.id) == b"1"
        answers.start()

        assert job.result(timeout=TIMEOUT_S).ranking
        eventually(lambda: not broker.exists("nameshot:suspects"))
