"""``nameshot_jobs_total`` counts every job by its outcome, including jobs whose images were never downloaded."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from celery import Celery

from producer import Client, JobFailed
from tests.acceptance.origin import Origin
from tests.acceptance.worker_process import Worker
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer

LABELS = ["fox", "bear"]
TIMEOUT_S = 30
METRICS_PORT = 19_840
CELERY = (sys.executable, "-m", "celery", "-A", "tests.chaos.null_worker", "worker", "-n", "counted@here")


@pytest.fixture
def worker(valkey: ValkeyServer, origin: Origin, tmp_path: Path) -> Iterator[Worker]:
    settings = {
        **valkey.settings("worker"),
        "NAMESHOT_FETCH_ALLOW": f"127.0.0.1/32:{origin.port}",
        "NAMESHOT_METRICS_PORT": str(METRICS_PORT),
    }
    with Worker(tmp_path, settings, CELERY) as worker:
        worker.wait_until_ready()
        yield worker


@pytest.fixture
def client(valkey: ValkeyServer) -> Iterator[Client]:
    with Client(valkey.broker_url, valkey.result_backend) as client:
        yield client


def counted(worker: Worker) -> dict[str, float]:
    """Return the counts of jobs by code, read from the metrics port that the worker chose."""
    moved = re.search(r"metrics port \d+ is in use; using (\d+)", worker.log)
    port = int(moved[1]) if moved else METRICS_PORT
    page = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text
    return {code: float(number) for code, number in re.findall(r'nameshot_jobs_total\{code="(\w+)"\} (\S+)', page)}


def test_ranked_and_failed_jobs_count_once_each_whatever_their_images(
    worker: Worker, client: Client, origin: Origin
) -> None:
    client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S)
    with pytest.raises(JobFailed):
        client.classify(origin.url("/nothing-here.png"), LABELS, timeout=TIMEOUT_S)
    pictures = [origin.url("/owl.png"), origin.url("/nothing-here.png")]
    assert len(list(client.classify_many(pictures, LABELS))) == 2

    assert counted(worker) == {"ok": 2.0, "http_status": 1.0}


def test_a_poisoned_job_is_counted_although_no_worker_runs_it_again(
    worker: Worker, client: Client, origin: Origin, valkey: ValkeyServer
) -> None:
    with valkey.connect() as broker:
        broker.hset("nameshot:suspects", mapping={"poison": 3, "alone poison": 1})

    poison = client.submit(origin.url("/owl.png"), LABELS, job_id="poison")

    with pytest.raises(JobFailed) as failed:
        poison.result(timeout=TIMEOUT_S)
    assert failed.value.code == "poisoned"
    assert counted(worker) == {"poisoned": 1.0}


def test_a_message_that_breaks_the_contract_counts_as_invalid_with_or_without_an_id(
    worker: Worker, valkey: ValkeyServer, origin: Origin
) -> None:
    kwargs = {"image": origin.url("/owl.png"), "candidate_labels": LABELS}
    with Celery("plain", broker=valkey.broker_url, backend=valkey.result_backend, set_as_current=False) as plain:
        for bad in ({**kwargs, "candidate_labels": []}, {**kwargs, "image": 3}):
            refused = plain.send_task("nameshot.classify", kwargs=bad, queue="nameshot.default")
            with pytest.raises(Exception, match="invalid_job"):
                refused.get(timeout=TIMEOUT_S)
    with valkey.connect() as broker:
        broker.lpush("nameshot.default", json.dumps({"headers": {}, "properties": {}}))

    eventually(lambda: counted(worker) == {"invalid_job": 3.0}, lambda: worker.log)
