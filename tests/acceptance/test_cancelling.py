"""A cancelled job frees its place in a real worker, after `Job.cancel` and after Celery's own revoke."""

import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from celery import Celery
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult

from producer import Client, JobExpired
from tests.acceptance.conftest import picture
from tests.acceptance.origin import Origin
from tests.acceptance.worker_process import Worker
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer

LABELS = ["fox", "bear"]
TIMEOUT_S = 30
CELERY = (sys.executable, "-m", "celery", "-A")
#: A forward pass that lasts longer than any test.
FOR_EVER_MS = 60_000

StartNullWorker = Callable[..., Worker]


@pytest.fixture
def client(valkey: ValkeyServer) -> Client:
    return Client(valkey.broker_url, valkey.result_backend)


@pytest.fixture
def own_origin() -> Iterator[Origin]:
    """An origin that holds back its held pages, and whose counts start at zero in each test."""
    with Origin() as origin:
        for name in ("/owl.png", "/never.png"):
            origin.pages[name] = ("image/png", picture("PNG", (64, 64), "saddlebrown"))
        yield origin


@pytest.fixture
def start(valkey: ValkeyServer, own_origin: Origin, tmp_path: Path) -> Iterator[StartNullWorker]:
    """Start null workers, which are killed after the test, because some would be busy for a minute."""
    with ExitStack() as stack:

        def start_one(app: str = "tests.chaos.null_worker", **settings: str) -> Worker:
            folder = tmp_path / uuid.uuid4().hex
            folder.mkdir()
            environment = {
                **valkey.settings("worker"),
                "NAMESHOT_FETCH_ALLOW": f"127.0.0.1/32:{own_origin.port}",
                "NAMESHOT_FETCH_TIMEOUT": str(TIMEOUT_S),
                "NAMESHOT_METRICS_PORT": "0",
                "NAMESHOT_CONCURRENCY": "1",
                "NAMESHOT_MAX_BATCH": "1",
                **settings,
            }
            worker = Worker(folder, environment, (*CELERY, app, "worker", "-n", f"{folder.name}@here"))
            stack.callback(worker.stop, signal.SIGKILL)
            worker.wait_until_ready()
            return worker

        yield start_one


def send(plain: Celery, url: str, **options: object) -> AsyncResult:
    return plain.send_task(
        "nameshot.classify", kwargs={"image": url, "candidate_labels": LABELS}, queue="nameshot.default", **options
    )


def test_cancelling_a_job_while_it_downloads_ends_the_download_and_frees_its_place(
    start: StartNullWorker, client: Client, own_origin: Origin
) -> None:
    worker = start()
    held = client.submit(own_origin.url("/held/owl.png"), LABELS)
    assert own_origin.asked.acquire(timeout=TIMEOUT_S)
    following = client.submit(own_origin.url("/owl.png"), LABELS)

    assert held.cancel()

    assert own_origin.left.acquire(timeout=TIMEOUT_S)
    assert following.result(timeout=TIMEOUT_S).ranking
    assert held.status() == "cancelled"
    assert f"job {held.id} was cancelled while it ran" in worker.log


def test_jobs_cancelled_while_they_wait_for_or_run_on_the_device_free_their_places(
    start: StartNullWorker, client: Client, own_origin: Origin, tmp_path: Path
) -> None:
    executions = tmp_path / "executions"
    worker = start(NAMESHOT_CONCURRENCY="2", NULL_FORWARD_MS=str(FOR_EVER_MS), NULL_EXECUTIONS=str(executions))
    jobs = [client.submit(own_origin.url("/owl.png"), LABELS) for _ in range(2)]
    for _ in jobs:
        assert own_origin.asked.acquire(timeout=TIMEOUT_S)
    eventually(lambda: executions.read_text().count(" run\n") == 2, lambda: worker.log)
    for _ in range(2):
        client.submit(own_origin.url("/held/owl.png"), LABELS)

    for job in jobs:
        assert job.cancel()

    for _ in range(2):
        assert own_origin.asked.acquire(timeout=TIMEOUT_S), worker.log
    assert [job.status() for job in jobs] == ["cancelled", "cancelled"]


def test_a_job_cancelled_while_it_waits_behind_another_is_never_run(
    start: StartNullWorker, client: Client, own_origin: Origin
) -> None:
    start()
    held = client.submit(own_origin.url("/held/owl.png"), LABELS)
    assert own_origin.asked.acquire(timeout=TIMEOUT_S)
    waiting = client.submit(own_origin.url("/never.png"), LABELS)
    last = client.submit(own_origin.url("/owl.png"), LABELS)

    assert waiting.cancel()
    own_origin.hold.set()

    assert held.result(timeout=TIMEOUT_S).ranking
    assert last.result(timeout=TIMEOUT_S).ranking
    assert waiting.status() == "cancelled"
    assert "/never.png" not in own_origin.paths


def test_revoking_a_bulk_job_ends_all_its_downloads(
    start: StartNullWorker, client: Client, plain: Celery, operator: Celery, own_origin: Origin
) -> None:
    start(NAMESHOT_CONCURRENCY="2")
    many = plain.send_task(
        "nameshot.classify_many",
        kwargs={"images": [own_origin.url("/held/owl.png")] * 5, "candidate_labels": LABELS},
        queue="nameshot.bulk",
    )
    for _ in range(2):
        assert own_origin.asked.acquire(timeout=TIMEOUT_S)

    operator.control.revoke(many.id)

    for _ in range(2):
        assert own_origin.left.acquire(timeout=TIMEOUT_S)
    assert client.classify(own_origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking
    assert many.state == "REVOKED"
    assert own_origin.paths.count("/held/owl.png") == 2


@pytest.mark.parametrize("terminate", [False, True])
def test_celery_s_revoke_stops_a_running_job_and_affects_no_other(
    start: StartNullWorker, client: Client, plain: Celery, operator: Celery, own_origin: Origin, terminate: bool
) -> None:
    worker = start()
    held = send(plain, own_origin.url("/held/owl.png"))
    assert own_origin.asked.acquire(timeout=TIMEOUT_S)

    operator.control.revoke(held.id, terminate=terminate)

    assert own_origin.left.acquire(timeout=TIMEOUT_S)
    with pytest.raises(TaskRevokedError):
        held.get(timeout=TIMEOUT_S)
    assert client.classify(own_origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking
    assert "Traceback" not in worker.log
    assert worker.process.poll() is None


def test_a_revoked_job_stays_revoked_although_the_worker_that_received_the_revocation_was_killed(
    start: StartNullWorker, client: Client, plain: Celery, operator: Celery, own_origin: Origin
) -> None:
    busy = start()
    held = send(plain, own_origin.url("/held/owl.png"))
    assert own_origin.asked.acquire(timeout=TIMEOUT_S)
    waiting = send(plain, own_origin.url("/never.png"))

    operator.control.revoke(waiting.id)
    eventually(lambda: bool(waiting.state == "REVOKED"), lambda: busy.log)
    busy.stop(signal.SIGKILL)
    own_origin.hold.set()
    start()

    assert held.get(timeout=TIMEOUT_S)["ranking"]
    assert client.classify(own_origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking
    assert client.job(waiting.id).status() == "cancelled"
    assert "/never.png" not in own_origin.paths


def test_a_poisoned_job_that_has_expired_is_answered_as_expired(
    start: StartNullWorker, client: Client, plain: Celery, own_origin: Origin, valkey: ValkeyServer
) -> None:
    suspect = str(uuid.uuid4())
    with valkey.connect() as broker:
        broker.hset("nameshot:suspects", mapping={suspect: 3, f"alone {suspect}": 1})
        expired = send(plain, own_origin.url("/never.png"), task_id=suspect, expires=datetime.now(UTC))
        start()

        with pytest.raises(TaskRevokedError):
            expired.get(timeout=TIMEOUT_S)
        with pytest.raises(JobExpired):
            client.job(suspect).result(timeout=TIMEOUT_S)
        assert not broker.exists("nameshot:dead-letters")
    assert "/never.png" not in own_origin.paths


def test_a_suspect_cancelled_while_it_waits_to_run_alone_frees_its_place(
    start: StartNullWorker, client: Client, own_origin: Origin, valkey: ValkeyServer, tmp_path: Path
) -> None:
    hang = tmp_path / "hang"
    hang.touch()
    worker = start(NAMESHOT_CONCURRENCY="2", NULL_HANG=str(hang))
    with valkey.connect() as broker:
        broker.hset("nameshot:suspects", mapping={"first": 2, "second": 2})
        first = client.submit(own_origin.url("/owl.png"), LABELS, job_id="first")
        eventually(lambda: b"first" in map(broker.get, broker.keys("nameshot:alone:*")), lambda: worker.log)
        second = client.submit(own_origin.url("/owl.png"), LABELS, job_id="second")
        [in_flight] = broker.keys("nameshot:in-flight:*")
        eventually(lambda: broker.hlen(in_flight) == 2, lambda: worker.log)

        assert second.cancel()
        eventually(lambda: broker.hlen(in_flight) == 1, lambda: worker.log)
        eventually(lambda: broker.hkeys("nameshot:suspects") == [b"first"], lambda: worker.log)

    hang.unlink()
    assert first.result(timeout=TIMEOUT_S).ranking
    assert client.classify(own_origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking


def test_a_suspect_cancelled_before_it_waits_to_run_alone_does_not_wait(
    start: StartNullWorker, client: Client, own_origin: Origin, valkey: ValkeyServer
) -> None:
    worker = start("tests.acceptance.cancelled_at_once_app", NAMESHOT_CONCURRENCY="2")
    held = client.submit(own_origin.url("/held/owl.png"), LABELS)
    assert own_origin.asked.acquire(timeout=TIMEOUT_S)
    with valkey.connect() as broker:
        broker.hset("nameshot:suspects", "suspect", 2)

    suspect = client.submit(own_origin.url("/never.png"), LABELS, job_id="suspect")

    eventually(lambda: suspect.status() == "cancelled", lambda: worker.log)
    assert held.status() == "running"


def test_a_revocation_changes_no_stored_answer(
    start: StartNullWorker, plain: Celery, operator: Celery, own_origin: Origin, valkey: ValkeyServer
) -> None:
    worker = start()
    done = send(plain, own_origin.url("/owl.png"))
    ranking = done.get(timeout=TIMEOUT_S)["ranking"]
    foreign, redelivered = (AsyncResult(str(uuid.uuid4()), app=plain) for _ in range(2))
    with Celery(backend=valkey.url(1), set_as_current=False) as another:
        another.backend.store_result(foreign.id, {"pid": 1, "hostname": "elsewhere"}, "STARTED")
        another.backend.store_result(redelivered.id, None, "STARTED")

    operator.control.revoke([done.id, foreign.id])
    operator.control.revoke(redelivered.id)
    eventually(lambda: bool(redelivered.state == "REVOKED"), lambda: worker.log)

    assert foreign.state == "STARTED"
    assert AsyncResult(done.id, app=plain).get(timeout=TIMEOUT_S)["ranking"] == ranking


def test_a_revoked_id_that_is_impossible_is_ignored_and_cannot_forge_a_log_line(
    start: StartNullWorker, operator: Celery, valkey: ValkeyServer
) -> None:
    worker = start()
    forged = "x\n12:00:00 INFO    worker.jobs.tasks  a line of a stranger\x1b[31m"

    operator.control.revoke([forged, "an-id"])
    eventually(lambda: "job an-id was revoked" in worker.log, lambda: worker.log)

    assert "a line of a stranger" not in worker.log
    with valkey.connect(1) as answers:
        assert answers.keys() == [b"celery-task-meta-an-id"]
