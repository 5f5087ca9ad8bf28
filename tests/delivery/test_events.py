"""With ``-E``, a monitor of Celery's events, such as Flower, sees each job end, but neither URLs nor labels."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.events.state import State

from producer import Client
from tests.acceptance.origin import Origin
from tests.acceptance.worker_process import Worker
from tests.delivery import troubles
from tests.delivery.conftest import COMMAND
from tests.eventually import eventually
from tests.jobs.test_messages import headers, message
from tests.valkey_server import ValkeyServer

LABELS = ["fox", "a secret label"]
TIMEOUT_S = 60


class Watcher:
    """Celery's own receiver of events, in a thread.

    Attributes:
        events: the events in the order in which they came.
    """

    def __init__(self, app: Celery) -> None:
        self.events: list[dict[str, Any]] = []
        self._app = app
        self._state = State()
        self._ready = threading.Event()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def state_of(self, job_id: str) -> str | None:
        """Return the state that Flower shows for a job."""
        task = self._state.tasks.get(job_id)
        return task.state if task is not None else None

    def _watch(self) -> None:
        with self._app.connection_for_read() as connection:
            receiver = self._app.events.Receiver(connection, handlers={"*": self._see})
            with receiver.consumer_context(wakeup=False) as (consuming, _, _):
                while not self._ends.is_set():
                    try:
                        consuming.drain_events(timeout=0.1)
                    except TimeoutError:
                        self._ready.set()

    def _see(self, event: dict[str, Any]) -> None:
        self.events.append(dict(event))
        self._state.event(event)

    def __enter__(self) -> "Watcher":
        self._thread.start()
        assert self._ready.wait(TIMEOUT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()


@pytest.fixture
def watcher(own_valkey: ValkeyServer) -> Iterator[Watcher]:
    with Celery(broker=own_valkey.url(0, "worker"), set_as_current=False) as app, Watcher(app) as watcher:
        yield watcher


@pytest.fixture
def hang(tmp_path: Path) -> Path:
    """A file; while it exists, a worker's device hangs."""
    return tmp_path / "hang"


@contextmanager
def telling_worker(valkey: ValkeyServer, origin: Origin, folder: Path, *more: str, **changed: str) -> Iterator[Worker]:
    """Start a worker that sends events if ``more`` contains ``-E``."""
    folder.mkdir()
    settings = {
        **valkey.settings("worker"),
        "NAMESHOT_FETCH_ALLOW": f"127.0.0.1/32:{origin.port}",
        "NAMESHOT_METRICS_PORT": "0",
        "NULL_HANG": str(folder.parent / "hang"),
        **changed,
    }
    with Worker(folder, settings, (*COMMAND, "-n", f"{folder.name}@%h", *more)) as worker:
        worker.wait_until_ready()
        yield worker


def test_events_end_each_job_with_the_state_of_its_answer(
    own_valkey: ValkeyServer, client: Client, origin: Origin, watcher: Watcher, hang: Path, tmp_path: Path
) -> None:
    url = origin.url("/owl.png?signature=s3cret")
    expected: dict[str, str] = {}
    with own_valkey.connect() as broker:
        cancelled = client.submit(url, LABELS)  # before a worker runs
        assert cancelled.cancel()
        expected[cancelled.id] = "REVOKED"
        past = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
        body: list[Any] = [[], {"image": url, "candidate_labels": LABELS}, None]
        for job_id, state in (("expired", "REVOKED"), ("malformed", "FAILURE"), ("poison", "FAILURE")):
            expected[job_id] = state
            more = {"expired": {"expires": past}, "malformed": {"eta": "soon"}, "poison": {}}[job_id]
            broker.lpush("nameshot.default", message(headers(id=job_id, **more), body))
        broker.hset("nameshot:suspects", mapping={"poison": 5, "alone poison": 5})
        broker.lpush("nameshot.default", message({"task": "celery.group", "id": "foreign"}))
        expected["foreign"] = "FAILURE"

        with telling_worker(own_valkey, origin, tmp_path / "telling", "-E") as worker:
            good = client.submit(url, LABELS)
            bad = client.submit("http://127.0.0.1:1/owl.png?signature=s3cret", LABELS)
            assert good.result(timeout=TIMEOUT_S).ranking
            expected |= {good.id: "SUCCESS", bad.id: "FAILURE"}
            hang.touch()
            stopped, revoked, outrun = (client.submit(url + number, LABELS) for number in "123")
            running = (stopped, revoked, outrun)
            eventually(lambda: all(watcher.state_of(job.id) == "STARTED" for job in running), lambda: worker.log)
            stopped.cancel()
            with Celery(broker=own_valkey.url(0, "worker"), set_as_current=False) as operator:
                operator.control.revoke(revoked.id)
            expected |= dict.fromkeys((stopped.id, revoked.id), "REVOKED")
            eventually(lambda: revoked.status() == "cancelled", lambda: worker.log)
            # Another worker has answered this job; this worker finds that out when it stores its own answer.
            with own_valkey.connect(1) as results:
                faster = {"status": "FAILURE", "traceback": None, "task_id": outrun.id}
                reason = {
                    "exc_type": "JobFailed",
                    "exc_message": ["poisoned", "x", False],
                    "exc_module": "producer.errors",
                }
                results.set(f"celery-task-meta-{outrun.id}", json.dumps({**faster, "result": reason}))
            expected[outrun.id] = "FAILURE"
            hang.unlink()
            # This message is delivered again, and the worker drops it.
            broker.lpush("nameshot.default", message(headers(id=good.id), body))
            eventually(
                lambda: {job_id: watcher.state_of(job_id) for job_id in expected} == expected,
                lambda: (
                    f"{ {job_id: watcher.state_of(job_id) for job_id in expected} } is not {expected}\n{worker.log}"
                ),
            )
            assert "Traceback" not in worker.log

    text = json.dumps(watcher.events, default=str)
    assert not [word for word in ("s3cret", "owl.png", "127.0.0.1:", "secret label", "Traceback") if word in text]
    assert [event for event in watcher.events if event["type"] == "task-revoked" and event["expired"]]


def test_the_failure_event_of_a_malformed_message_follows_its_answer(
    own_valkey: ValkeyServer, answers: ValkeyServer, origin: Origin, watcher: Watcher, tmp_path: Path
) -> None:
    backend = {"NAMESHOT_RESULT_BACKEND": answers.url(1, "worker")}
    with (
        own_valkey.connect() as broker,
        telling_worker(own_valkey, origin, tmp_path / "telling", "-E", **backend) as worker,
    ):
        with troubles.away(answers):
            broker.lpush("nameshot.default", message(headers(id="malformed", eta="soon"), [[], {}, None]))
            eventually(lambda: "the result backend does not take answers" in worker.log, lambda: worker.log)
            seen = len(watcher.events)
            eventually(lambda: len(watcher.events) > seen, lambda: worker.log)  # a heartbeat that the worker sent later
            assert watcher.state_of("malformed") is None
        eventually(lambda: watcher.state_of("malformed") == "FAILURE", lambda: worker.log)
        with answers.connect(1) as results:
            assert b"invalid_job" in results.get("celery-task-meta-malformed")


def test_without_the_option_a_worker_sends_no_event_of_a_job(
    own_valkey: ValkeyServer, client: Client, origin: Origin, watcher: Watcher, tmp_path: Path
) -> None:
    with telling_worker(own_valkey, origin, tmp_path / "silent"):
        assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking
        eventually(lambda: watcher.events)

    assert not [event for event in watcher.events if event["type"].startswith("task-")]
