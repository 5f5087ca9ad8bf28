"""After an id was freed and submitted again, nothing that happens to the old job affects the new one."""

import signal

import pytest

from producer import Client, JobNotFound
from tests.acceptance.origin import Origin
from tests.delivery.conftest import StartWorker
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer

LABELS, OTHERS = ["fox", "bear"], ["car", "boat"]
TIMEOUT_S = 60


def test_an_id_that_was_freed_while_a_frozen_worker_holds_its_message_is_unknown_and_cannot_be_cancelled(
    start_worker: StartWorker, client: Client, origin: Origin
) -> None:
    worker = start_worker("slow")
    job = client.submit(origin.url("/held/owl.png"), LABELS, job_id="upload")
    assert origin.asked.acquire(timeout=TIMEOUT_S)
    worker.process.send_signal(signal.SIGSTOP)  # a frozen worker receives no cancellation
    assert job.cancel()
    assert job.forget()

    assert job.status() == "unknown"
    with pytest.raises(JobNotFound):
        job.cancel()
    assert not job.forget()
    again = client.submit(origin.url("/car.jpg"), OTHERS, job_id="upload")
    assert again.is_new

    origin.hold.set()
    worker.process.send_signal(signal.SIGCONT)
    assert {score.label for score in again.result(timeout=TIMEOUT_S).ranking} == {*OTHERS}


def test_a_late_announcement_of_a_cancellation_stops_no_later_job_of_its_id(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer
) -> None:
    worker = start_worker("steady")
    job = client.submit(origin.url("/held/owl.png"), LABELS, job_id="upload")
    other = client.submit(origin.url("/held/car.jpg"), LABELS)
    for _ in range(2):
        assert origin.asked.acquire(timeout=TIMEOUT_S)

    with own_valkey.connect() as broker:
        assert broker.publish("nameshot:cancelled", job.id) == 1
    assert other.cancel()
    eventually(lambda: f"job {other.id} was cancelled while it ran" in worker.log)

    origin.hold.set()
    assert job.result(timeout=TIMEOUT_S).ranking
