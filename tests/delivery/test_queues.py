"""How one worker serves several queues, and two copies of one message."""

from pathlib import Path

import pytest
from celery import Celery

from producer import Client
from producer.contract.names import QUEUES
from tests.acceptance.origin import Origin
from tests.delivery.conftest import StartWorker
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer

LABELS = ["fox", "bear"]
TIMEOUT_S = 60
ONE_BY_ONE = {"NAMESHOT_CONCURRENCY": "1", "NAMESHOT_MAX_BATCH": "1"}
EACH = 21


def test_while_all_queues_hold_jobs_high_is_served_first_and_bulk_does_not_starve(
    start_worker: StartWorker, client: Client, origin: Origin, tmp_path: Path
) -> None:
    executions = tmp_path / "executions"
    jobs = [
        client.submit(origin.url("/owl.png"), LABELS, queue=queue, job_id=f"{queue}-{number}")
        for queue in reversed(QUEUES)
        for number in range(EACH)
    ]
    start_worker("only", NULL_EXECUTIONS=str(executions), **ONE_BY_ONE)
    for job in jobs:
        assert job.result(timeout=TIMEOUT_S).ranking

    order = [line.partition("-")[0] for line in executions.read_text().splitlines() if line.endswith("run")]
    first_turns = order[:21]
    assert [first_turns.count(queue) for queue in QUEUES] == [16, 4, 1]
    assert len(order) == 3 * EACH


def test_two_copies_of_one_message_in_one_worker_give_one_answer(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer
) -> None:
    job = client.submit(origin.url("/owl.png"), LABELS)
    with own_valkey.connect() as broker:
        (message,) = broker.lrange("nameshot.default", 0, -1)
        broker.lpush("nameshot.default", message)
        start_worker("only")
        answer = job.result(timeout=TIMEOUT_S)
        eventually(lambda: not (broker.keys("nameshot:in-flight:*") or broker.llen("nameshot.default")))

    assert job.result(timeout=TIMEOUT_S) == answer


@pytest.mark.parametrize("priority", [0, 5, 9])
def test_a_message_to_which_a_plain_client_gave_a_priority_is_answered(
    start_worker: StartWorker, origin: Origin, own_valkey: ValkeyServer, priority: int
) -> None:
    """Kombu writes messages with a priority into separate lists."""
    start_worker("only")
    arguments = {"image": origin.url("/owl.png"), "candidate_labels": LABELS}
    with Celery(broker=own_valkey.broker_url, backend=own_valkey.result_backend, set_as_current=False) as plain:
        sent = plain.send_task("nameshot.classify", kwargs=arguments, queue="nameshot.bulk", priority=priority)
        assert sent.get(TIMEOUT_S)["ranking"]
