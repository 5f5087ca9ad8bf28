"""Celery's own command line inspects and controls a real worker."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from producer import Client
from tests.acceptance.origin import Origin
from tests.acceptance.worker_process import ROOT, Worker
from tests.delivery.conftest import StartWorker
from tests.eventually import eventually
from tests.jobs.test_messages import headers, message
from tests.valkey_server import ValkeyServer

LABELS = ["fox", "a secret label"]
TIMEOUT_S = 60
#: By default Celery waits one second for replies, too short for a busy machine.
PATIENCE = "10"
Tool = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def celery_tool(own_valkey: ValkeyServer) -> Tool:
    """``celery -A worker …`` as an operator of the same Redis runs it."""

    def run(*arguments: str, app: str = "worker") -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "celery", "-A", app, *arguments]
        environment = {**os.environ, **own_valkey.settings("worker"), "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)

    return run


@pytest.fixture
def operator(own_valkey: ValkeyServer) -> Any:
    """A plain Celery app that may publish to the workers."""
    with Celery(broker=own_valkey.url(0, "worker"), set_as_current=False) as app:
        yield app


@pytest.fixture
def hang(tmp_path: Path) -> Path:
    """A file; while it exists, a worker's device hangs."""
    return tmp_path / "hang"


def ask(operator: Celery, command: str, **arguments: Any) -> Any:
    """Return the reply of the only worker."""
    (reply,) = operator.control.broadcast(command, arguments=arguments, reply=True, timeout=10, limit=1)
    (told,) = reply.values()
    return told


def test_a_worker_says_in_its_lease_from_which_queues_it_takes(
    start_worker: StartWorker, operator: Celery, broker: redis.Redis
) -> None:
    worker = start_worker("choosy", options=("-Q", "nameshot.high,nameshot.default"))
    where = f"{os.uname().nodename}/{worker.process.pid} takes "

    def says(queues: str) -> bool:
        (lease,) = broker.keys("nameshot:lease:*")
        return broker.get(lease) == f"{where}{queues}".encode()

    eventually(lambda: says("high,default"))
    for queue in ("nameshot.high", "nameshot.default"):
        assert "ok" in ask(operator, "cancel_consumer", queue=queue)
    eventually(lambda: says("nothing"))
    assert "ok" in ask(operator, "add_consumer", queue="nameshot.bulk")
    eventually(lambda: says("bulk"))


@pytest.mark.parametrize("arguments", [("inspect", "ping"), ("status",)])
def test_celery_s_usual_health_checks_find_a_healthy_worker(
    start_worker: StartWorker, celery_tool: Tool, arguments: tuple[str, ...]
) -> None:
    start_worker("healthy")

    told = celery_tool(*arguments, "-t", PATIENCE, "-d", f"healthy@{os.uname().nodename}")

    assert told.returncode == 0, told.stderr
    assert "healthy@" in told.stdout
    assert "1 node online" in told.stdout


def test_without_a_worker_celery_s_health_check_fails(celery_tool: Tool) -> None:
    told = celery_tool("inspect", "ping")

    assert told.returncode == 69
    assert "No nodes replied" in told.stderr


def test_celery_inspect_shows_running_jobs_without_urls_labels_or_passwords(
    start_worker: StartWorker, celery_tool: Tool, operator: Celery, client: Client, origin: Origin, hang: Path
) -> None:
    start_worker("busy", NULL_HANG=str(hang))
    hang.touch()
    job = client.submit(origin.url("/owl.png?signature=s3cret"), LABELS)
    host = f"busy@{os.uname().nodename}"

    def inspect(command: str, *more: str) -> str:
        told = celery_tool("inspect", "-t", PATIENCE, "-d", host, command, *more)
        assert told.returncode == 0, told.stderr
        return told.stdout

    eventually(lambda: ask(operator, "active"), lambda: "it does not run")
    told = [
        inspect("active"),
        inspect("query_task", job.id),
        inspect("reserved"),
        inspect("scheduled"),
        inspect("stats"),
    ]
    told.append(json.dumps([ask(operator, "dump_active"), ask(operator, "active", safe=False), ask(operator, "conf")]))
    told.append(json.dumps([ask(operator, "dump_conf", with_defaults=True), ask(operator, "active_queues")]))

    assert job.id in told[0]
    assert job.id in told[1]
    for text in told:
        assert not [word for word in ("s3cret", "secret label", "owl.png", "fox", "w-s3cret") if word in text], text
    hang.unlink()
    assert job.result(timeout=TIMEOUT_S).ranking


def test_a_worker_takes_nothing_from_a_cancelled_queue_until_it_is_added_again(
    start_worker: StartWorker, celery_tool: Tool, operator: Celery, client: Client, origin: Origin, broker: redis.Redis
) -> None:
    worker = start_worker("choosy")
    assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking
    told = celery_tool("control", "-t", PATIENCE, "cancel_consumer", "nameshot.bulk")
    assert told.returncode == 0
    assert "takes no more messages from nameshot.bulk" in told.stdout

    left = client.submit(origin.url("/owl.png"), LABELS, queue="bulk")
    for _ in range(5):  # each of these jobs makes the worker look into its queues
        assert client.classify(origin.url("/car.jpg"), LABELS, timeout=TIMEOUT_S).ranking
    assert broker.llen("nameshot.bulk") == 1
    assert left.status() == "queued"

    for queue in ("nameshot.high", "nameshot.default"):
        assert "ok" in ask(operator, "cancel_consumer", queue=queue)
    idle = client.submit(origin.url("/owl.png"), LABELS)
    assert ask(operator, "active_queues") == []
    for queue in ("nameshot.high", "nameshot.default", "nameshot.bulk"):
        assert ask(operator, "add_consumer", queue=queue) == {"ok": f"this worker takes messages from {queue}"}
    assert left.result(timeout=TIMEOUT_S).ranking
    assert idle.result(timeout=TIMEOUT_S).ranking
    assert worker.process.poll() is None
    assert "Traceback" not in worker.log


@pytest.fixture
def broker(own_valkey: ValkeyServer) -> Any:
    with own_valkey.connect() as client:
        yield client


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("add_consumer", {"queue": "nameshot:suspects"}, "not a queue of this worker"),
    ("add_consumer", {"queue": "strangers", "exchange": "x", "routing_key": "y"}, "not a queue of this worker"),
    ("cancel_consumer", {"queue": ["nameshot.bulk"]}, "not a queue of this worker"),
    ("pool_grow", {"n": 1_000_000}, "NAMESHOT_CONCURRENCY"),
    ("pool_shrink", {"n": 1}, "NAMESHOT_CONCURRENCY"),
    ("autoscale", {"max": 1, "min": 1}, "NAMESHOT_CONCURRENCY"),
    ("pool_restart", {"modules": ["antigravity"], "reload": True}, "NAMESHOT_CONCURRENCY"),
    ("rate_limit", {"task_name": "nameshot.classify", "rate_limit": "1/h"}, "memory"),
    ("time_limit", {"task_name": "nameshot.classify", "hard": 1}, "NAMESHOT_JOB_TIMEOUT"),
    ("revoke_by_stamped_headers", {"headers": {"a": "b"}, "terminate": True}, "ids"),
    ("election", {"id": "x", "topic": "y"}, "refuse"),
    ("objgraph", {}, "refuse"),
    ("report", {}, "refuse"),
    ("memsample", {}, "refuse"),
    ("query_task", {"ids": [{}]}, "TypeError"),
    ("ping", {"state": 1}, "TypeError"),
]


def test_commands_that_would_change_a_worker_are_refused_in_a_sentence(operator: Celery, obeying: Worker) -> None:
    for command, arguments, why in REFUSED:
        assert why in ask(operator, command, **arguments)["error"], command
    assert "Traceback" not in obeying.log


@pytest.fixture
def obeying(start_worker: StartWorker) -> Worker:
    """A worker that the test may control."""
    return start_worker("obeying")


def test_a_worker_that_celery_shuts_down_finishes_its_running_job(
    start_worker: StartWorker, celery_tool: Tool, operator: Celery, client: Client, origin: Origin, hang: Path
) -> None:
    worker = start_worker("leaving", NULL_HANG=str(hang), NAMESHOT_DRAIN_TIMEOUT="60")
    hang.touch()
    job = client.submit(origin.url("/owl.png"), LABELS)
    eventually(lambda: ask(operator, "active"), lambda: "it does not run")

    told = celery_tool("control", "-t", PATIENCE, "shutdown")
    late = client.submit(origin.url("/owl.png"), LABELS)
    hang.unlink()

    assert told.returncode == 0
    assert "shutting down" in told.stdout
    assert worker.process.wait(TIMEOUT_S) == 0
    assert job.result(timeout=TIMEOUT_S).ranking
    assert late.status() == "queued"


def packed(body: Any, **more: Any) -> str:
    """Return a broadcast as kombu writes it, but with a body in plain text."""
    return json.dumps(
        {
            "body": body if isinstance(body, str) else json.dumps(body),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {},
            "properties": {
                "body_encoding": "utf-8",
                "delivery_tag": "t",
                "delivery_info": {"exchange": "celery.pidbox", "routing_key": ""},
            },
            **more,
        }
    )


PING: dict[str, Any] = {"method": "ping", "arguments": {}, "destination": None, "pattern": None, "matcher": None}
ADDRESS = "12345678-1234-1234-1234-123456789abc"
STRANGE = [
    "{}",
    "null",
    "[]",
    "not JSON",
    "[" * 100_000,
    '{"a":' * 5_000,
    json.dumps({"properties": None}),
    json.dumps({"properties": {"delivery_tag": 1}, "body": 7}),
    packed(PING, headers=["x"]),
    packed(PING, headers={"compression": "application/x-gzip", "clock": 10**400}),
    packed(PING, **{"content-type": "application/x-python-serialize"}),
    packed(PING, **{"content-type": ["x"]}),
    packed(PING, properties={"body_encoding": "zlib", "delivery_tag": "t", "delivery_info": {}}),
    packed("[" * 100_000),
    packed("not JSON"),
    packed(7),
    packed({"method": None}),
    packed({**PING, "method": "no such command"}),
    packed({**PING, "method": {"a": 1}}),
    packed({**PING, "arguments": 7}),
    packed({**PING, "arguments": {"state": 1}}),
    packed({**PING, "destination": 7}),
    packed({**PING, "pattern": "(.*)*(.*)*(.*)*(.*)*(.*)*x", "matcher": "pcre"}),
    packed({**PING, "pattern": ["a"], "matcher": "glob"}),
    packed({**PING, "reply_to": 7}),
    packed({**PING, "reply_to": {"exchange": "", "routing_key": "nameshot:suspects"}, "ticket": "x"}),
    packed({**PING, "reply_to": {"exchange": "celery.pidbox", "routing_key": ADDRESS}, "ticket": "x"}),
    packed({**PING, "reply_to": {"exchange": "reply.celery.pidbox", "routing_key": "nameshot"}, "ticket": "x"}),
    packed({**PING, "method": "hello", "arguments": {"from_node": "x", "revoked": ["a"] * 1000}}),
    packed({**PING, "method": "shutdown", "destination": ["another@host"]}),
]


def test_no_strange_broadcast_ends_a_worker_or_makes_it_write_a_key(
    obeying: Worker, operator: Celery, broker: redis.Redis, client: Client, origin: Origin
) -> None:
    keys = set(broker.keys())
    for text in STRANGE:
        broker.publish("/0.celery.pidbox", text)

    assert ask(operator, "ping") == {"ok": "pong"}
    assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking
    new = {key for key in set(broker.keys()) - keys if b":claim:" not in key}
    assert not [key for key in new if b"suspects" in key or (b"reply" in key and ADDRESS.encode() in key)], new
    assert obeying.process.poll() is None
    assert "Traceback" not in obeying.log


def test_a_reply_that_no_program_reads_expires(obeying: Worker, broker: redis.Redis) -> None:
    reply_to = {"exchange": "reply.celery.pidbox", "routing_key": ADDRESS}
    broker.publish("/0.celery.pidbox", packed({**PING, "reply_to": reply_to, "ticket": "x"}))

    eventually(lambda: broker.exists(f"{ADDRESS}.reply.celery.pidbox"), lambda: obeying.log)
    assert 0 < broker.ttl(f"{ADDRESS}.reply.celery.pidbox") <= 60


def test_a_revoked_or_expired_job_can_be_sent_again_under_its_id(
    start_worker: StartWorker, operator: Celery, origin: Origin, own_valkey: ValkeyServer, broker: redis.Redis
) -> None:
    start_worker("forgetful")
    body: list[Any] = [[], {"image": origin.url("/owl.png"), "candidate_labels": LABELS}, None]
    past = {"expires": "2001-01-01T00:00:00Z"}

    with own_valkey.connect(1) as results:

        def answered(job_id: str, status: bytes) -> bool:
            found = results.get(f"celery-task-meta-{job_id}")
            return isinstance(found, bytes) and status in found

        operator.control.revoke("revoked")
        broker.lpush("nameshot.default", message(headers(id="expired", **past), body))
        for job_id in ("revoked", "expired"):
            eventually(partial(answered, job_id, b"REVOKED"), lambda: "it is not revoked")
            eventually(lambda: not broker.keys("nameshot:in-flight:*"), lambda: "it is still held")
            results.delete(f"celery-task-meta-{job_id}")  # as `forget` does
            broker.lpush("nameshot.default", message(headers(id=job_id), body))
            eventually(partial(answered, job_id, b"ranking"), lambda: "it did not run")
