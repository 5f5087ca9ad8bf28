"""A worker names a key that another program overwrote, and goes on with all work that does not need the key."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from producer import Client
from tests.acceptance.origin import Origin
from tests.delivery.conftest import StartWorker
from tests.delivery.test_stored_answers import asks
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer

LABELS = ["fox", "bear"]
TIMEOUT_S = 60


def test_a_worker_logs_an_overwritten_key_and_still_requeues_a_dead_worker_s_messages(
    start_worker: StartWorker, own_valkey: ValkeyServer, client: Client, origin: Origin
) -> None:
    with own_valkey.connect() as broker:
        broker.set("nameshot:postponed", "junk")
        broker.sadd("nameshot:workers", "gone", "strange")
        broker.hset("nameshot:in-flight:gone", "tag held", b"nameshot.default\n" + asks(origin, "held"))
        broker.hset("nameshot:in-hand", "held", "gone")
        broker.set("nameshot:in-flight:strange", "junk")
        worker = start_worker("careful")

        assert client.job("held").result(timeout=TIMEOUT_S).ranking
        eventually(lambda: "the key nameshot:postponed holds a string, not a zset" in worker.log, lambda: worker.log)
        eventually(lambda: "cannot requeue the messages of the dead worker strange: WRONGTYPE" in worker.log)
        broker.delete("nameshot:postponed")
        eventually(lambda: "can requeue postponed messages again" in worker.log)
    assert "Traceback" not in worker.log


def test_a_job_that_cannot_be_postponed_waits_in_its_queue_and_runs_at_its_time(
    start_worker: StartWorker, own_valkey: ValkeyServer, client: Client, origin: Origin
) -> None:
    worker = start_worker("careful")
    eta = (datetime.now(UTC) + timedelta(seconds=5)).isoformat()
    with own_valkey.connect() as broker:
        broker.set("nameshot:postponed", "junk")
        broker.lpush("nameshot.default", asks(origin, "later", eta=eta))
        eventually(lambda: "cannot postpone a message until its eta" in worker.log, lambda: worker.log)

        assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking
        assert client.job("later").result(timeout=TIMEOUT_S).ranking
    assert worker.process.poll() is None
    assert "Traceback" not in worker.log


@pytest.mark.parametrize("broken", [["dead-letters"], ["dead-letters", "postponed"]])
def test_a_job_that_can_neither_be_answered_nor_stored_as_a_dead_letter_is_kept(
    broken: list[str],
    start_worker: StartWorker,
    own_valkey: ValkeyServer,
    answers: ValkeyServer,
    client: Client,
    origin: Origin,
) -> None:
    with own_valkey.connect() as broker, answers.connect(1) as results:
        for key in broken:
            broker.set(f"nameshot:{key}", "junk")
        results.lpush("celery-task-meta-occupied", 1)
        worker = start_worker("careful", NAMESHOT_RESULT_BACKEND=answers.url(1, "worker"))
        broker.lpush("nameshot.default", asks(origin, "occupied"))
        eventually(lambda: "could not store job occupied as a dead letter" in worker.log, lambda: worker.log)
        assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking

        for key in broken:
            broker.delete(f"nameshot:{key}")
        if broken == ["dead-letters"]:
            ((member, _),) = broker.zscan("nameshot:postponed")[1]
            assert b'"occupied"' in member
        else:
            eventually(lambda: broker.llen("nameshot:dead-letters") == 1)
            assert json.loads(broker.lindex("nameshot:dead-letters", 0))["id"] == "occupied"
    assert "Traceback" not in worker.log
