"""What a worker does with answers that it cannot store: the result backend is down, or a key has a wrong type."""

import json
import signal
import subprocess
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from celery import Celery
from celery.states import SUCCESS

from producer import Client, JobExpired, JobFailed
from producer.broker.urls import endpoint
from producer.operations.answers import ANY_LIFE
from tests.acceptance.origin import Origin
from tests.acceptance.worker_process import Worker
from tests.cli.command import Home
from tests.delivery import troubles
from tests.delivery.conftest import StartWorker
from tests.delivery.probing import OK, Probe, wait_for
from tests.delivery.troubles import Trouble
from tests.eventually import eventually
from tests.jobs.test_messages import headers, message
from tests.valkey_server import ValkeyServer
from worker.delivery.taken import Taken, elapsed_s
from worker.delivery.times import Times
from worker.jobs.results import FirstAnswerBackend, Unanswerable

LABELS = ["fox", "bear"]
TIMEOUT_S = 60
THREADS = 4
JOB_TIMEOUT_S = 4


def asks(origin: Origin, job_id: str, **more: object) -> bytes:
    body = [[], {"image": origin.url("/owl.png"), "candidate_labels": LABELS}, {}]
    return message(headers(id=job_id, **more), body)


def malformed(job_id: str) -> bytes:
    return message(headers(id=job_id), [[], {}, {"chord": 1}])


def backend_of(app: Celery, answers: ValkeyServer) -> FirstAnswerBackend:
    app.endpoints = tuple(endpoint(answers.url(database, "worker"), "the URL") for database in (0, 1))
    return FirstAnswerBackend(app=app)


def assert_nothing_is_left(broker: ValkeyServer, letters: int = 0) -> None:
    with broker.connect() as connection:
        eventually(lambda: not (connection.keys("nameshot:in-flight:*") or connection.llen("nameshot.default")))
        assert not connection.exists("nameshot:suspects")
        assert connection.llen("nameshot:dead-letters") == letters


@troubles.each(troubles.away, troubles.frozen)
def test_while_no_answer_can_be_stored_a_worker_waits_and_afterwards_answers_each_job_once(
    trouble: Trouble,
    start_worker: StartWorker,
    client: Client,
    origin: Origin,
    probe: Probe,
    own_valkey: ValkeyServer,
    answers: ValkeyServer,
    tmp_path: Path,
    times: Times,
) -> None:
    executions = tmp_path / "executions"
    worker = start_worker(
        "patient",
        NAMESHOT_RESULT_BACKEND=answers.url(1, "worker"),
        NAMESHOT_METRICS_PORT=probe.port,
        NAMESHOT_CONCURRENCY=str(THREADS),
        NAMESHOT_JOB_TIMEOUT=str(JOB_TIMEOUT_S),
        NULL_EXECUTIONS=str(executions),
    )
    pid = worker.process.pid
    finished = client.submit(origin.url("/held/owl.png"), LABELS)
    assert origin.asked.acquire(timeout=TIMEOUT_S)
    past = (datetime.now(UTC) - timedelta(seconds=5)).isoformat()
    with own_valkey.connect() as broker:
        with trouble(answers):
            origin.hold.set()
            broker.lpush("nameshot.default", malformed("broken"), asks(origin, "late", expires=past))
            jobs = [client.submit(origin.url("/owl.png"), LABELS) for _ in range(3 * THREADS)]
            eventually(lambda: "the result backend does not take answers" in probe("/readyz")[1], lambda: worker.log)
            with pytest.raises(subprocess.TimeoutExpired):
                # Longer than an event loop may be silent, and longer than a job may hang.
                worker.process.wait(max(times.loop_silent_s, JOB_TIMEOUT_S + times.overdue_s) + 2 * times.round_s)
            assert probe("/healthz") == OK
            (lease,) = broker.keys("nameshot:lease:*")
            assert b": the result backend does not take answers" in broker.get(lease)
            (held,) = broker.keys("nameshot:in-flight:*")
            assert broker.hlen(held) <= THREADS

        for job in (finished, *jobs):
            assert job.result(timeout=TIMEOUT_S).ranking
        with pytest.raises(JobExpired):
            client.job("late").result(timeout=TIMEOUT_S)
        with pytest.raises(JobFailed, match="invalid_job"):
            client.job("broken").result(timeout=TIMEOUT_S)
        wait_for(probe, "/readyz", OK, worker)
        eventually(lambda: b": " not in broker.get(lease))
    assert (worker.process.pid, worker.process.poll()) == (pid, None)
    assert_nothing_is_left(own_valkey, letters=1)
    runs = Counter(line.split()[0] for line in executions.read_text().splitlines() if line.endswith("run"))
    assert runs == dict.fromkeys([finished.id, *(job.id for job in jobs)], 1)
    assert "Traceback" not in worker.log


def test_a_worker_that_waits_for_the_result_backend_ends_in_time_and_requeues_its_jobs(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer, answers: ValkeyServer
) -> None:
    settings = {"NAMESHOT_RESULT_BACKEND": answers.url(1, "worker"), "NAMESHOT_DRAIN_TIMEOUT": "2"}
    worker = start_worker("leaving", **settings)
    job = client.submit(origin.url("/held/owl.png"), LABELS)
    assert origin.asked.acquire(timeout=TIMEOUT_S)
    with own_valkey.connect() as broker:
        with troubles.away(answers):
            origin.hold.set()
            broker.lpush("nameshot.default", malformed("broken"), asks(origin, "plain"))
            eventually(lambda: "the result backend does not take answers" in worker.log)

            assert worker.stop(signal.SIGTERM) == 0
            assert broker.llen("nameshot.default") == 3
            assert not broker.keys("nameshot:in-flight:*")
            assert not broker.exists("nameshot:suspects", "nameshot:dead-letters")

        start_worker("heir", **settings)
        assert job.result(timeout=TIMEOUT_S).ranking
        assert client.job("plain").result(timeout=TIMEOUT_S).ranking
    with pytest.raises(JobFailed, match="invalid_job"):
        client.job("broken").result(timeout=TIMEOUT_S)


def test_a_job_whose_answer_key_has_a_wrong_type_becomes_a_dead_letter_and_delays_no_other_job(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer, answers: ValkeyServer
) -> None:
    worker = start_worker("steady", NAMESHOT_RESULT_BACKEND=answers.url(1, "worker"), NAMESHOT_CONCURRENCY="2")
    pid = worker.process.pid
    late = {"expires": (datetime.now(UTC) - timedelta(seconds=5)).isoformat()}
    with own_valkey.connect() as broker, answers.connect(1) as results:
        for job_id in ("malformed", "begun", "late"):
            results.lpush(f"celery-task-meta-{job_id}", 1)
        results.sadd("celery-task-meta-a-set", 1)
        broker.lpush("nameshot.default", malformed("malformed"), asks(origin, "begun"), asks(origin, "late", **late))
        broker.lpush("nameshot.default", asks(origin, "a-set"))
        finished = client.submit(origin.url("/held/owl.png"), LABELS, job_id="finished")
        assert origin.asked.acquire(timeout=TIMEOUT_S)
        results.delete("celery-task-meta-finished")
        results.hset("celery-task-meta-finished", "a", 1)
        origin.hold.set()

        assert client.classify(origin.url("/car.jpg"), LABELS, timeout=TIMEOUT_S).ranking
        eventually(lambda: broker.llen("nameshot:dead-letters") == 5, lambda: worker.log)
        records = [json.loads(record) for record in broker.lrange("nameshot:dead-letters", 0, -1)]
    assert {(record["id"], record["code"]) for record in records} == {
        ("malformed", "malformed"),
        *((job_id, "unanswerable") for job_id in ("begun", "late", "a-set", finished.id)),
    }
    assert_nothing_is_left(own_valkey, letters=5)
    assert (worker.process.pid, worker.process.poll()) == (pid, None)
    assert "Traceback" not in worker.log


def test_a_job_whose_answer_could_not_be_stored_can_be_replayed(
    start_worker: StartWorker,
    client: Client,
    origin: Origin,
    own_valkey: ValkeyServer,
    answers: ValkeyServer,
    command: Home,
) -> None:
    start_worker("steady", NAMESHOT_RESULT_BACKEND=answers.url(1, "worker"))
    with own_valkey.connect() as broker, answers.connect(1) as results:
        results.lpush("celery-task-meta-occupied", 1)
        client.submit(origin.url("/owl.png"), LABELS, job_id="occupied")
        eventually(lambda: broker.llen("nameshot:dead-letters"))
        letter = json.loads(broker.lindex("nameshot:dead-letters", 0))["letter"]

    done = command.run("dead-letters", "replay", letter)

    assert done.status == 0, done.err
    assert client.job(done.out.split()[-1]).result(timeout=TIMEOUT_S).ranking


def test_an_answer_replaces_a_text_that_is_no_answer(
    start_worker: StartWorker, origin: Origin, own_valkey: ValkeyServer, answers: ValkeyServer
) -> None:
    start_worker("steady", NAMESHOT_RESULT_BACKEND=answers.url(1, "worker"))
    junk = {"celery-task-meta-text": "junk", "celery-task-meta-number": "5", "celery-task-meta-null": "null"}
    with own_valkey.connect() as broker, answers.connect(1) as results:
        results.mset(junk)
        broker.lpush("nameshot.default", *(asks(origin, key.removeprefix("celery-task-meta-")) for key in junk))
        eventually(lambda: all(b'"SUCCESS"' in value for value in results.mget(junk)))


@troubles.each(*troubles.ALL)
def test_an_answer_is_stored_as_soon_as_the_server_works_again(trouble: Trouble, answers: ValkeyServer) -> None:
    with Celery("patient", set_as_current=False) as app:
        app.conf.redis_socket_timeout = 1.0
        backend = backend_of(app, answers)
        backend.store_result("before", {}, SUCCESS)
        storing = threading.Thread(target=backend.store_result, args=("during", {}, SUCCESS))
        with trouble(answers):
            storing.start()
            eventually(lambda: backend.outage.description)
            assert storing.is_alive()
        storing.join(TIMEOUT_S)

        assert backend.outage.description is None
        with answers.connect(1) as results:
            assert json.loads(results.get("celery-task-meta-during"))["status"] == SUCCESS


def test_a_full_result_backend_still_stores_answers(answers: ValkeyServer) -> None:
    with Celery("patient", set_as_current=False) as app, answers.connect(1) as results:
        backend = backend_of(app, answers)
        with troubles.oom(answers):
            backend.store_result("full", {}, SUCCESS)
            assert json.loads(results.get("celery-task-meta-full"))["status"] == SUCCESS


def test_a_worker_does_not_wait_for_an_answer_key_of_a_wrong_type(answers: ValkeyServer) -> None:
    with Celery("patient", set_as_current=False) as app, answers.connect(1) as results:
        backend = backend_of(app, answers)
        results.lpush("celery-task-meta-a-list", 1)
        with pytest.raises(Unanswerable, match="WRONGTYPE"):
            backend.store_result("a-list", {}, SUCCESS)


class Request:
    """The part of a Celery request from which the backend reads the message's life."""

    nameshot_taken = Taken("a-life")


def test_an_answer_records_the_life_of_its_message_and_a_forgotten_life_stores_no_answer(answers: ValkeyServer) -> None:
    with Celery("patient", set_as_current=False) as app, answers.connect(1) as results:
        backend = backend_of(app, answers)
        backend.store_result("known", {"ranking": []}, SUCCESS, request=Request())
        assert json.loads(results.get("celery-task-meta-known"))["life"] == "a-life"
        assert "life" not in backend.get_task_meta("known")["result"]

        results.zadd("nameshot-forgotten-forgotten", {"a-life": 1})
        noted: list[tuple[str, str]] = []
        backend.on_answered = lambda *answered: noted.append(answered)
        assert not backend.begin("known", Request())
        assert noted == [("known", "a-life")]
        assert not backend.begin("forgotten", Request())
        assert noted == [("known", "a-life")], "the id's claim now belongs to another message"
        backend.store_result("forgotten", {}, SUCCESS, request=Request())
        assert not results.exists("celery-task-meta-forgotten")
        backend.store_result("forgotten", {}, SUCCESS)
        assert results.exists("celery-task-meta-forgotten")


@pytest.mark.parametrize("life", ["", "a-life"])
def test_a_message_of_unknown_life_that_was_taken_before_its_id_was_freed_answers_nothing(
    life: str, answers: ValkeyServer
) -> None:
    class Held:
        def __init__(self) -> None:
            self.nameshot_taken = Taken(life, elapsed_s())

    def forget() -> None:
        seconds, microseconds = results.time()
        members = dict.fromkeys(("", ANY_LIFE), seconds * 1_000_000 + microseconds)
        results.delete("celery-task-meta-job")
        results.zadd("nameshot-forgotten-job", members)

    with Celery("patient", set_as_current=False) as app, answers.connect(1) as results:
        backend = backend_of(app, answers)
        taken, begun = Held(), Held()
        assert backend.begin("job", begun)
        forget()
        new = Held()
        assert not backend.begin("job", taken)
        backend.store_result("job", {}, SUCCESS, request=begun)
        assert not results.exists("celery-task-meta-job")

        backend.is_claimed_for_another = lambda job_id, its_life: (job_id, its_life) == ("job", life)
        assert not backend.begin("job", new)
        backend.is_claimed_for_another = lambda *_: False
        assert backend.begin("job", new)
        backend.store_result("job", {}, SUCCESS, request=new)
        assert json.loads(results.get("celery-task-meta-job"))["status"] == SUCCESS


def test_a_suspect_stays_a_suspect_until_its_answer_is_stored(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer, answers: ValkeyServer
) -> None:
    job = client.submit(origin.url("/held/owl.png"), LABELS)
    with own_valkey.connect() as broker:
        broker.hset("nameshot:suspects", job.id, 1)  # the record of a worker that died with the job in hand
        worker: Worker = start_worker("careful", NAMESHOT_RESULT_BACKEND=answers.url(1, "worker"))
        assert origin.asked.acquire(timeout=TIMEOUT_S)
        with troubles.away(answers):
            origin.hold.set()
            eventually(lambda: "the result backend does not take answers" in worker.log)
            assert broker.hget("nameshot:suspects", job.id) == b"1"

        assert job.result(timeout=TIMEOUT_S).ranking
        eventually(lambda: not broker.exists("nameshot:suspects"))
