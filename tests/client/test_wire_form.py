"""A message in Redis is an ordinary Celery message: stock Celery writes the same one, and can read ours."""

import json
import os
import subprocess
import sys
import time
from base64 import b64decode
from datetime import datetime
from typing import Any

import pytest

from producer import Client
from producer.contract.names import SENT_AT_HEADER
from tests.client.stock_worker import StockWorker
from tests.valkey_server import ValkeyServer

URL = "https://images.example/owl.jpg?X-Signature=secret"
LABELS = ["fox", "bear", "seagull", "フクロウ"]


def in_queue(valkey: ValkeyServer, queue: str = "nameshot.default") -> dict[str, Any]:
    with valkey.connect() as connection:
        popped = connection.rpop(queue)
    assert isinstance(popped, bytes)
    envelope: dict[str, Any] = json.loads(popped)
    envelope["body"] = json.loads(b64decode(envelope["body"]))
    return envelope


@pytest.mark.parametrize("expires_in", [None, 60])
def test_every_field_is_what_celerys_own_send_task_writes(
    client: Client, worker: StockWorker, valkey: ValkeyServer, expires_in: float | None
) -> None:
    client.submit(URL, LABELS, job_id="same-id", expires_in=expires_in)
    ours = in_queue(valkey)
    worker.app.send_task(
        "nameshot.classify",
        kwargs={"image": URL, "candidate_labels": LABELS},
        queue="nameshot.default",
        task_id="same-id",
        expires=expires_in,
        argsrepr="…",
        kwargsrepr="…",
        headers={SENT_AT_HEADER: ours["headers"][SENT_AT_HEADER]},
        ignore_result=False,
    )
    celerys = in_queue(valkey)

    if expires_in is not None:
        ours_at, celerys_at = (datetime.fromisoformat(each["headers"].pop("expires")) for each in (ours, celerys))
        assert abs((ours_at - celerys_at).total_seconds()) < 5
    for each in (ours, celerys):
        assert len(each["properties"].pop("delivery_tag")) == 36
        each["properties"].pop("reply_to")  # for the rpc:// result backend, which Redis never reads
    # Celery passes its two redactions on as message properties too, by accident of **options.
    celerys["properties"].pop("argsrepr")
    celerys["properties"].pop("kwargsrepr")
    assert ours == celerys


def test_a_kombu_consumer_reads_the_task_and_its_arguments(client: Client, worker: StockWorker) -> None:
    before_s = time.time()
    job = client.submit(
        URL, LABELS, hypothesis_template=["a {}", "the {}"], top_k=2, download_timeout=3, expires_in=60, queue="high"
    )

    message = worker.take("high")

    assert message.headers["task"] == "nameshot.classify"
    assert message.headers["id"] == message.properties["correlation_id"] == job.id
    assert before_s <= message.headers[SENT_AT_HEADER] <= time.time()
    expires_at_s = datetime.fromisoformat(message.headers["expires"]).timestamp()
    assert expires_at_s == pytest.approx(message.headers[SENT_AT_HEADER] + 60)
    args, kwargs, _ = message.payload
    assert args == []
    assert kwargs == {
        "image": URL,
        "candidate_labels": LABELS,
        "hypothesis_template": ["a {}", "the {}"],
        "top_k": 2,
        "timeout": 3.0,
    }


def test_no_two_messages_share_a_delivery_tag(client: Client, valkey: ValkeyServer) -> None:
    def submit_and_forget(job_id: str | None) -> str:
        client.submit(URL, LABELS, job_id=job_id)
        with valkey.connect() as connection:
            connection.delete("nameshot:claim:same-id")  # as if the claim had expired
        return str(in_queue(valkey)["properties"]["delivery_tag"])

    assert len({submit_and_forget(job_id) for job_id in (None, None, "same-id", "same-id")}) == 4


def test_the_url_is_only_in_the_arguments_and_in_no_field_that_logs_and_events_show(
    client: Client, valkey: ValkeyServer
) -> None:
    client.submit(URL, LABELS)

    envelope = in_queue(valkey)

    assert "images.example" not in json.dumps({**envelope, "body": None})


def test_a_plain_celery_worker_runs_our_jobs(client: Client, valkey: ValkeyServer) -> None:
    command = [sys.executable, "-m", "celery", "-A", "tests.client.plain_app", "worker", "--pool", "solo"]
    command += ["-Q", "nameshot.default,nameshot.bulk", "--without-gossip", "--without-mingle", "-l", "warning"]
    environment = {**os.environ, "PLAIN_BROKER": valkey.url(0), "PLAIN_BACKEND": valkey.url(1)}
    worker = subprocess.Popen(command, env=environment)
    try:
        result = client.classify(URL, LABELS, timeout=30)
        outcomes = list(client.classify_many([URL, "no url", URL], LABELS, top_k=1))
    finally:
        worker.terminate()
        worker.wait(timeout=30)

    assert [score.label for score in result.ranking] == LABELS
    assert [outcome.ok for outcome in outcomes] == [True, False, True]
