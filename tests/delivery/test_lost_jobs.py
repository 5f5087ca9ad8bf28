"""With real workers, a job whose message was lost, purged or forgotten has the right state and is not answered."""

import json
import signal
import threading
from collections import Counter

import pytest
from celery import Celery

from producer import Client, JobNotFound
from producer.operations.answers import revoked_meta
from tests.acceptance.origin import Origin
from tests.cli.command import Home
from tests.delivery.conftest import StartWorker
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer

LABELS = ["fox", "bear"]
OTHERS = ["gull", "crow"]
TIMEOUT_S = 60
ONE_AT_A_TIME = {"NAMESHOT_CONCURRENCY": "1", "NAMESHOT_MAX_BATCH": "1"}


def labels_of(answered: object) -> set[str]:
    return {score.label for score in answered.ranking}  # type: ignore[attr-defined]


def test_no_job_is_ever_unknown_while_workers_take_die_and_answer(
    start_worker: StartWorker, client: Client, origin: Origin
) -> None:
    jobs = client.submit_many([(origin.url("/held/owl.png"), LABELS)] * 5 + [(origin.url("/owl.png"), LABELS)] * 300)
    seen: Counter[str] = Counter()
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            seen.update(job.status() for job in jobs[::7])

    watchers = [threading.Thread(target=watch) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    victim = start_worker("victim")
    for _ in range(5):
        assert origin.asked.acquire(timeout=TIMEOUT_S)
    victim.process.kill()
    victim.process.wait()
    start_worker("heir")
    origin.hold.set()
    for job in jobs:
        assert job.result(timeout=TIMEOUT_S).ranking
    ended.set()
    for watcher in watchers:
        watcher.join()

    assert seen["unknown"] == 0
    assert seen["succeeded"]
    eventually(lambda: client.backlog().total == 0)  # workers acknowledge a message after they store its answer


def test_a_killed_worker_s_messages_are_counted_until_another_worker_takes_them_over(
    start_worker: StartWorker, client: Client, command: Home, origin: Origin
) -> None:
    victim = start_worker("victim")
    jobs = [client.submit(origin.url("/held/owl.png"), LABELS) for _ in range(3)]
    for _ in jobs:
        assert origin.asked.acquire(timeout=TIMEOUT_S)
    assert (client.backlog().in_hand, client.backlog().workers) == (3, 1)

    victim.process.kill()
    victim.process.wait()

    eventually(lambda: client.backlog().in_dead_hands == 3)
    assert client.backlog().total == 3
    assert "held by dead workers: 3" in command.run("doctor").out
    start_worker("heir")
    origin.hold.set()
    assert all(job.result(timeout=TIMEOUT_S).ranking for job in jobs)
    eventually(lambda: client.backlog().total == 0)


@pytest.mark.parametrize("by", ["nameshot", "celery"])
def test_a_client_that_waits_for_a_purged_job_gets_job_not_found_and_a_new_submission_runs(
    by: str,
    start_worker: StartWorker,
    client: Client,
    command: Home,
    origin: Origin,
    own_valkey: ValkeyServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("producer.client.waiting.RECHECK_S", 1.0)
    start_worker("busy", **ONE_AT_A_TIME)
    held = client.submit(origin.url("/held/owl.png"), LABELS)
    assert origin.asked.acquire(timeout=TIMEOUT_S)
    jobs = [client.submit(origin.url("/car.jpg"), LABELS, job_id=f"order-{number}") for number in range(5)]
    waiting = [client._listener.wait(job.id) for job in jobs]
    eventually(lambda: client.backlog().in_hand == 1 and client.queue_depths()["default"] == 5)

    if by == "nameshot":
        assert command.run("purge", "default", "--yes").status == 0
    else:
        with Celery(broker=own_valkey.url(0), set_as_current=False) as plain, plain.connection_for_write() as broker:
            assert broker.default_channel.queue_purge("nameshot.default") == 5

    assert [future.result(timeout=TIMEOUT_S).state for future in waiting] == ["unknown"] * 5
    with pytest.raises(JobNotFound):
        jobs[0].result(timeout=1)
    again = client.submit(origin.url("/car.jpg"), OTHERS, job_id="order-0")
    assert again.is_new
    assert held.status() == "running"
    origin.hold.set()
    assert labels_of(again.result(timeout=TIMEOUT_S)) == set(OTHERS)
    assert labels_of(held.result(timeout=TIMEOUT_S)) == set(LABELS)


def test_a_worker_that_was_frozen_with_a_forgotten_job_never_answers_the_new_one(
    start_worker: StartWorker, client: Client, origin: Origin
) -> None:
    frozen = start_worker("frozen")
    job = client.submit(origin.url("/held/owl.png"), LABELS, job_id="order-17")
    assert origin.asked.acquire(timeout=TIMEOUT_S)
    frozen.process.send_signal(signal.SIGSTOP)
    start_worker("heir")
    assert origin.asked.acquire(timeout=TIMEOUT_S)
    origin.hold.set()
    assert labels_of(job.result(timeout=TIMEOUT_S)) == set(LABELS)
    eventually(lambda: client.backlog().total == 0)
    assert job.forget()
    origin.hold.clear()
    again = client.submit(origin.url("/held/car.jpg"), OTHERS, job_id="order-17")
    assert origin.asked.acquire(timeout=TIMEOUT_S)

    frozen.process.send_signal(signal.SIGCONT)
    for _ in range(20):  # the thawed worker takes its share of what comes, and finishes what it held
        assert client.classify(origin.url("/car.jpg"), LABELS, timeout=TIMEOUT_S).ranking

    assert again.status() == "running"
    origin.hold.set()
    assert labels_of(again.result(timeout=TIMEOUT_S)) == set(OTHERS)


def test_a_worker_removes_the_waiting_message_of_a_forgotten_job(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer
) -> None:
    start_worker("busy", **ONE_AT_A_TIME)
    client.submit(origin.url("/held/owl.png"), LABELS)
    assert origin.asked.acquire(timeout=TIMEOUT_S)
    first, forgotten, last = (client.submit(origin.url("/car.jpg"), LABELS) for _ in range(3))
    forgotten.cancel()

    assert forgotten.forget()

    with own_valkey.connect() as broker:
        eventually(lambda: not broker.llen("nameshot:forget"))
        waiting = b"".join(broker.lrange("nameshot.default", 0, -1))
        assert forgotten.id.encode() not in waiting
        assert first.id.encode() in waiting
    origin.hold.set()
    assert first.result(timeout=TIMEOUT_S).ranking
    assert last.result(timeout=TIMEOUT_S).ranking
    assert forgotten.status() == "unknown"


def short_message(job_id: str, url: str, **properties: str) -> str:
    """Return the short form of a message in docs/wire-format.md."""
    body = json.dumps([[], {"image": url, "candidate_labels": LABELS}, {}])
    headers = {"task": "nameshot.classify", "id": job_id}
    message = {"body": body, "content-type": "application/json", "headers": headers}
    return json.dumps({**message, "properties": properties} if properties else message)


def test_a_worker_that_was_frozen_with_a_message_that_names_no_life_never_answers_the_new_job(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer
) -> None:
    frozen = start_worker("frozen")
    with own_valkey.connect() as broker:
        broker.lpush("nameshot.default", short_message("order-17", origin.url("/held/owl.png")))
    assert origin.asked.acquire(timeout=TIMEOUT_S)
    frozen.process.send_signal(signal.SIGSTOP)
    start_worker("heir")
    assert origin.asked.acquire(timeout=TIMEOUT_S)
    origin.hold.set()
    assert labels_of(client.job("order-17").result(timeout=TIMEOUT_S)) == set(LABELS)
    eventually(lambda: client.backlog().total == 0)
    assert client.forget("order-17")
    origin.hold.clear()
    again = client.submit(origin.url("/held/car.jpg"), OTHERS, job_id="order-17")
    assert origin.asked.acquire(timeout=TIMEOUT_S)

    frozen.process.send_signal(signal.SIGCONT)
    for _ in range(20):  # the thawed worker takes its share of what comes, and finishes what it held
        assert client.classify(origin.url("/car.jpg"), LABELS, timeout=TIMEOUT_S).ranking

    assert again.status() == "running"
    origin.hold.set()
    assert labels_of(again.result(timeout=TIMEOUT_S)) == set(OTHERS)


@pytest.mark.parametrize("properties", [{}, {"delivery_tag": "life-of-a-plain-client"}])
def test_a_plain_clients_message_that_waited_when_its_job_was_forgotten_never_answers_the_new_one(
    properties: dict[str, str], start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer
) -> None:
    with own_valkey.connect() as broker, own_valkey.connect(1) as results:
        broker.lpush("nameshot.default", short_message("order-17", origin.url("/held/owl.png"), **properties))
        results.set("celery-task-meta-order-17", revoked_meta("order-17", "cancelled"))
        assert client.forget("order-17")
        start_worker("first")
        assert origin.asked.acquire(timeout=TIMEOUT_S)  # no record tells the worker that this message is old
        again = client.submit(origin.url("/held/car.jpg"), OTHERS, job_id="order-17")
        assert origin.asked.acquire(timeout=TIMEOUT_S)
        broker.lpush("nameshot.default", short_message("order-17", origin.url("/held/owl.png"), **properties))
    origin.hold.set()

    assert labels_of(again.result(timeout=TIMEOUT_S)) == set(OTHERS)
    eventually(lambda: client.backlog().total == 0)
    assert labels_of(again.result(timeout=TIMEOUT_S)) == set(OTHERS)


def test_a_plain_client_s_job_can_be_sent_again_under_a_forgotten_id(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer
) -> None:
    start_worker("busy")
    job = client.job("order-17")
    with own_valkey.connect() as broker:
        for _ in range(3):
            broker.lpush("nameshot.default", short_message("order-17", origin.url("/car.jpg")))
            eventually(lambda: job.status() == "succeeded")
            assert job.forget()
            eventually(lambda: job.status() == "unknown")  # once the worker has acknowledged the message
