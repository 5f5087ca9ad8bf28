"""A worker runs only our two tasks; it refuses any other, answers it and keeps it as a dead letter."""

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery, group

from producer import Client
from tests.acceptance.origin import Origin
from tests.acceptance.worker_process import Worker
from tests.delivery.conftest import COMMAND
from tests.eventually import eventually
from tests.jobs.test_messages import headers, message
from tests.valkey_server import ValkeyServer

LABELS = ["fox", "bear"]
TIMEOUT_S = 60
BUILT_IN = [
    *("celery.accumulate", "celery.backend_cleanup", "celery.chain", "celery.chord", "celery.chord_unlock"),
    *("celery.chunks", "celery.group", "celery.map", "celery.starmap"),
]
FOREIGN = [*BUILT_IN, "celery.ping", "stranger.own", "stranger.shared", "stranger.unknown"]


@pytest.fixture
def broker(own_valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with own_valkey.connect() as client:
        yield client


@pytest.fixture
def plain(own_valkey: ValkeyServer) -> Iterator[Celery]:
    """A foreign Celery app, in the producer's role."""
    with Celery(broker=own_valkey.broker_url, set_as_current=False) as app:
        yield app


@pytest.fixture
def worker(own_valkey: ValkeyServer, origin: Origin, tmp_path: Path) -> Iterator[Worker]:
    """A worker whose program has tasks of its own."""
    folder = tmp_path / "wrapped"
    folder.mkdir()
    settings = {
        **own_valkey.settings("worker"),
        "NAMESHOT_FETCH_ALLOW": f"127.0.0.1/32:{origin.port}",
        "NAMESHOT_METRICS_PORT": "0",
        "NULL_STRANGERS": str(strangers(tmp_path)),
    }
    command = [part.replace("tests.chaos.null_worker", "tests.delivery.wrapping_worker") for part in COMMAND]
    with Worker(folder, settings, tuple(command)) as worker:
        worker.wait_until_ready()
        yield worker


def strangers(folder: Path) -> Path:
    """Return the folder in which a foreign task leaves a file if it runs."""
    path = folder / "strangers"
    path.mkdir(exist_ok=True)
    return path


def test_a_worker_refuses_every_foreign_task_without_dying_or_writing_other_keys(
    worker: Worker,
    own_valkey: ValkeyServer,
    plain: Celery,
    client: Client,
    origin: Origin,
    broker: redis.Redis,
    tmp_path: Path,
) -> None:
    pid = worker.process.pid
    options = {"routing_key": "nameshot:suspects", "exchange": "", "queue": "nameshot:suspects"}
    signature: dict[str, Any] = {
        "task": "stranger.own",
        "args": [],
        "kwargs": {},
        "options": options,
        "subtask_type": None,
    }
    bodies: list[Any] = [
        None,
        7,
        [],
        [[], {}, None],
        [[[signature]], {"tasks": [signature], "result": None, "group_id": "g", "partial_args": []}, options],
        [[], {}, {"callbacks": [signature], "errbacks": [signature], "chain": [signature], "chord": signature}],
    ]
    more: dict[str, Any] = {
        "eta": "2999-01-01T00:00:00+00:00",
        "expires": "1999-01-01T00:00:00+00:00",
        "group": "a-group",
        "retries": 1,
        "reply_to": "nameshot:suspects",
    }
    ids = []
    for task in FOREIGN:
        for number, body in enumerate(bodies):
            for extra in ({}, more):
                ids.append(f"{task}-{number}-{len(extra)}")
                broker.lpush("nameshot.default", with_body(message({"task": task, "id": ids[-1], **extra}), body))
        ids.append(f"{task}-old")
        old = {"task": task, "id": ids[-1], "args": [[signature]], "kwargs": options, "eta": more["eta"]}
        broker.lpush("nameshot.default", with_body(message({}), old))
    ids.append(str(plain.send_task("celery.accumulate", queue="nameshot.default", countdown=9_999_999)))

    for job_id in ids:
        code, sentence, retryable = answer(own_valkey, job_id)["exc_message"]
        assert (code, retryable) == ("invalid_job", False)
        assert sentence.startswith("the message is malformed: ")
    assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking
    eventually(lambda: not broker.keys("nameshot:in-flight:*"), lambda: "a message is still held")
    assert broker.llen("nameshot:dead-letters") == len(ids)
    assert not broker.exists("nameshot:suspects", "stranger.own", "nameshot:postponed", "celery")
    assert (worker.process.pid, worker.process.poll()) == (pid, None)
    assert not list(strangers(tmp_path).iterdir())
    assert "Traceback" not in worker.log
    assert "the task stranger.own is left out" in worker.log


def answer(valkey: ValkeyServer, job_id: str) -> Any:
    """Return the stored result of a job once the job has ended."""
    with valkey.connect(1) as results:

        def ended() -> bool:
            found = results.get(f"celery-task-meta-{job_id}")
            return isinstance(found, bytes) and json.loads(found)["status"] in {"SUCCESS", "FAILURE", "REVOKED"}

        eventually(ended, lambda: f"{job_id} has no answer")
        return json.loads(str(results.get(f"celery-task-meta-{job_id}"), "utf-8"))["result"]


def with_body(text: bytes, body: Any) -> bytes:
    """Return the message with another body, which may be any JSON value."""
    encoded = base64.b64encode(json.dumps(body).encode()).decode()
    return json.dumps({**json.loads(text), "body": encoded}).encode()


def test_a_celery_group_of_our_tasks_is_answered_job_by_job(
    worker: Worker, own_valkey: ValkeyServer, plain: Celery, origin: Origin
) -> None:
    ours = plain.signature(
        "nameshot.classify",
        kwargs={"image": origin.url("/owl.png"), "candidate_labels": LABELS},
        options={"queue": "nameshot.default"},
    )

    jobs = [str(each) for each in group([ours, ours], app=plain).apply_async()]

    for job_id in jobs:
        assert answer(own_valkey, job_id)["ranking"]
    assert worker.process.poll() is None


def test_refused_and_postponed_messages_do_not_stay_in_a_worker_s_memory(
    worker: Worker, client: Client, origin: Origin, broker: redis.Redis
) -> None:
    filler = "x" * 1_000_000

    def send(count: int) -> None:
        for number in range(count):
            kwargs = {"image": origin.url("/owl.png"), "candidate_labels": LABELS, "filler": filler}
            far = {"eta": "2999-01-01T00:00:00+00:00", "expires": "2999-01-01T00:00:00+00:00", "argsrepr": filler}
            broker.lpush("nameshot.default", message(headers(id=f"far-{number}", **far), [[], kwargs, None]))
            broker.lpush("nameshot.default", message({"task": "celery.group", "id": f"foreign-{number}", **far}))
        assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking
        eventually(lambda: not broker.llen("nameshot.default"), lambda: "they are not taken")
        eventually(lambda: not broker.keys("nameshot:in-flight:*"), lambda: "they are still held")

    send(20)  # Python keeps the memory of these for further use
    before = resident_bytes(worker.process.pid)
    send(60)

    assert resident_bytes(worker.process.pid) - before < 100_000_000, "the worker kept messages, which had 200 MB"


def resident_bytes(pid: int) -> int:
    """Return how much memory a process occupies; Linux only."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
