"""A worker process from start to stop: with which settings it refuses to start, and how it handles jobs."""

import base64
import json
import signal
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from celery import Celery
from celery.exceptions import TaskRevokedError

from producer import Client, JobCancelled, JobExpired
from tests.acceptance.conftest import StartWorker, picture
from tests.acceptance.origin import Origin
from tests.acceptance.worker_process import Worker
from tests.cli.command import NAMESHOT
from tests.delivery.conftest import NULL_APP, command_of
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer

LABELS = ["fox", "bear"]
TIMEOUT_S = 60

#: Marks a test that needs the shared worker but not its handle.
with_a_worker = pytest.mark.usefixtures("worker")

#: A real worker, except for its model: that has no weights, so the worker starts in a second.
NULL = command_of(NULL_APP)
#: By default such a worker runs every image; with these settings it caches embeddings, as real workers do.
CACHED = {"NAMESHOT_EMBEDDING_CACHE_BYTES": "1000000"}
COMMANDS = {"celery": (), "nameshot": (str(NAMESHOT), "worker")}


@pytest.fixture
def client(valkey: ValkeyServer) -> Client:
    return client_of(valkey, "nameshot")


def client_of(valkey: ValkeyServer, prefix: str) -> Client:
    """Return a client of the queues with this prefix."""
    return Client(valkey.url(0, "producer", prefix), valkey.url(1, "producer", prefix), queue_prefix=prefix)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"NAMESHOT_MODEL": "/no/such/folder"}, "/no/such/folder"),
        ({"NAMESHOT_MAX_BATCH": "many"}, "NAMESHOT_MAX_BATCH"),
        ({"NAMESHOT_FETCH_PORTS": "80,http"}, "NAMESHOT_FETCH_PORTS"),
        ({"NAMESHOT_FETCH_ALLOW": "127.0.0.1"}, "NAMESHOT_FETCH_ALLOW"),
        ({"NAMESHOT_READY_FILE": "/no/such/folder/ready"}, "NAMESHOT_READY_FILE"),
    ],
)
def test_a_worker_that_cannot_work_ends_with_one_sentence(
    start_worker: StartWorker, checkpoint: Callable[[str], Path], settings: dict[str, str], part: str
) -> None:
    worker = start_worker(checkpoint("clip"), **settings)

    assert worker.process.wait(TIMEOUT_S) != 0
    assert part in worker.log
    assert "Traceback" not in worker.log


@with_a_worker
def test_images_that_arrive_together_share_a_batch_whatever_their_labels(client: Client, origin: Origin) -> None:
    for n in range(12):
        origin.pages[f"/{n}.png"] = ("image/png", picture("PNG", (100 + n, 100), "seagreen"))
    origin.hold_back()
    jobs = [client.submit(origin.url(f"/held/{n}.png"), [f"label {n}", "other"]) for n in range(12)]
    for _ in jobs:
        assert origin.asked.acquire(timeout=TIMEOUT_S)
    origin.hold.set()

    results = [job.result(timeout=TIMEOUT_S) for job in jobs]

    assert max(result.batch_size for result in results) > 1
    assert [{score.label for score in result.ranking} for result in results] == [
        {f"label {n}", "other"} for n in range(12)
    ]


@with_a_worker
def test_simultaneous_jobs_share_a_picture_s_download_and_its_forward_pass_whatever_their_labels(
    client: Client, origin: Origin
) -> None:
    origin.pages["/wanted.png"] = ("image/png", picture("PNG", (90, 90), "gold"))
    origin.hold_back()
    jobs = [client.submit(origin.url("/held/wanted.png"), [f"label {n}", "other"]) for n in range(4)]
    eventually(lambda: [job.status() for job in jobs] == ["running"] * 4)
    origin.hold.set()

    results = [*(job.result(timeout=TIMEOUT_S) for job in jobs), client.classify(origin.url("/wanted.png"), LABELS)]

    assert sorted(result.batch_size for result in results) == [0, 0, 0, 0, 1]
    assert len({result.image.sha256 for result in results}) == 1
    assert origin.paths.count("/held/wanted.png") < len(jobs)


@with_a_worker
def test_a_result_says_how_long_the_job_of_our_client_waited(client: Client, origin: Origin) -> None:
    queued_ms = client.classify(origin.url("/owl.png"), LABELS).timings_ms.queued

    assert queued_ms is not None
    assert queued_ms >= 0


def test_a_job_cancelled_while_it_waits_is_never_run(
    valkey: ValkeyServer, start_worker: StartWorker, origin: Origin
) -> None:
    """The test has its own queues, so that no other worker takes the job first."""
    client = client_of(valkey, "cancelled")
    origin.pages["/never.png"] = origin.pages["/owl.png"]
    job = client.submit(origin.url("/never.png"), LABELS)
    job.cancel()

    late = start_worker("bundled", NULL, prefix="cancelled")
    late.wait_until_ready()
    client.classify(origin.url("/owl.png"), LABELS)

    assert f"job {job.id} does not run: it is answered or forgotten already" in late.log
    assert job.status() == "cancelled"
    with pytest.raises(JobCancelled):
        job.result(timeout=1)


@with_a_worker
def test_an_expired_job_is_not_run(plain: Celery, client: Client, origin: Origin) -> None:
    result = plain.send_task(
        "nameshot.classify",
        kwargs={"image": origin.url("/owl.png"), "candidate_labels": LABELS},
        queue="nameshot.default",
        expires=-1,
    )

    with pytest.raises(TaskRevokedError):
        result.get(timeout=TIMEOUT_S)
    job = client.job(result.id)
    with pytest.raises(JobExpired):
        job.result(timeout=TIMEOUT_S)
    assert job.status() == "expired"


@pytest.mark.parametrize("body", ["null", "[]", "{}", "[[], null, null]", "[[], {}, []]", '[[], {"image": NaN}, {}]'])
def test_a_malformed_message_does_not_affect_other_jobs(
    body: str, worker: Worker, client: Client, valkey: ValkeyServer, origin: Origin
) -> None:
    envelope = {
        "body": base64.b64encode(body.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": "nameshot.classify", "id": str(uuid.uuid4()), "root_id": None},
        "properties": {
            "correlation_id": str(uuid.uuid4()),
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "nameshot.default"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }
    with valkey.connect() as broker:
        broker.lpush("nameshot.default", json.dumps(envelope))

    assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking
    assert worker.process.poll() is None


def test_probes_report_ready_and_metrics_count_outcomes(
    valkey: ValkeyServer, start_worker: StartWorker, origin: Origin
) -> None:
    client = client_of(valkey, "probed")
    worker = start_worker("bundled", NULL, prefix="probed", NAMESHOT_METRICS_PORT="19808", **CACHED)
    worker.wait_until_ready()
    for labels in (LABELS, ["new", "labels"]):
        client.classify(origin.url("/owl.png"), labels)

    assert requests.get("http://127.0.0.1:19808/readyz", timeout=5).status_code == 200
    assert requests.get("http://127.0.0.1:19808/healthz", timeout=5).status_code == 200
    metrics = requests.get("http://127.0.0.1:19808/metrics", timeout=5).text
    assert 'nameshot_images_total{code="ok"} 2.0' in metrics
    assert "nameshot_image_cache_hits_total 1.0" in metrics
    assert "nameshot_image_cache_misses_total 1.0" in metrics
    assert "nameshot_label_cache_misses_total 4.0" in metrics
    assert "nameshot_shared_downloads_total 0.0" in metrics
    assert 'nameshot_stage_duration_seconds_count{stage="fetch"} 2.0' in metrics
    assert 'nameshot_stage_duration_seconds_count{stage="forward"} 1.0' in metrics
    assert "owl" not in metrics


@pytest.mark.parametrize("command", ["celery", "nameshot"])
def test_sigterm_lets_the_running_job_finish(
    valkey: ValkeyServer,
    start_worker: StartWorker,
    checkpoint: Callable[[str], Path],
    origin: Origin,
    command: str,
) -> None:
    prefix = f"drained-{command}"
    client = client_of(valkey, prefix)
    worker = start_worker(checkpoint("clip"), prefix=prefix, command=COMMANDS[command])
    worker.wait_until_ready()
    origin.hold_back()
    job = client.submit(origin.url("/held/car.jpg"), LABELS)
    assert origin.asked.acquire(timeout=TIMEOUT_S)

    worker.process.send_signal(signal.SIGTERM)
    worker.wait_for_log("Warm shutdown")
    origin.hold.set()

    assert job.result(timeout=TIMEOUT_S).ranking
    assert worker.process.wait(TIMEOUT_S) == 0
