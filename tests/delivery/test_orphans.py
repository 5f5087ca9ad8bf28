"""If a connection breaks at the wrong moment, Redis records that a worker holds a message that it never received."""

import pytest

from producer import Client
from producer.broker.scripting import digest
from producer.contract.names import in_flight_key, in_hand_key
from tests.acceptance.origin import Origin
from tests.delivery.conftest import StartWorker
from tests.delivery.meddling_link import MeddlingLink
from tests.delivery.slow_link import SlowLink
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer
from worker.delivery.scripts import ACKNOWLEDGE
from worker.delivery.times import Times

LABELS = ["fox", "bear"]
TIMEOUT_S = 60


def test_a_message_whose_delivery_was_cut_off_is_delivered_again(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer
) -> None:
    job = client.submit(origin.url("/owl.png"), LABELS)
    with own_valkey.connect() as broker:
        message = broker.rpop("nameshot.default")
        start_worker("living")
        (worker,) = broker.smembers("nameshot:workers")
        with broker.pipeline() as step:  # as a worker's script records what it takes
            step.hset(in_flight_key("nameshot", worker.decode()), f"cut-off {job.id}", b"nameshot.default\n" + message)
            step.hset(in_hand_key("nameshot"), job.id, worker)
            step.execute()

    assert job.result(timeout=TIMEOUT_S).ranking


def test_a_job_whose_acknowledgement_was_cut_off_is_acknowledged_and_keeps_its_answer(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer
) -> None:
    job = client.submit(origin.url("/owl.png"), LABELS)
    with own_valkey.connect() as broker:
        (message,) = broker.lrange("nameshot.default", 0, -1)
        start_worker("living")
        answer = job.result(timeout=TIMEOUT_S)
        (worker,) = broker.smembers("nameshot:workers")
        in_flight = in_flight_key("nameshot", worker.decode())
        broker.hset(in_flight, "a tag of the past", b"nameshot.default\n" + message)
        eventually(lambda: not broker.hlen(in_flight))
        eventually(lambda: not broker.llen("nameshot.default"))

    assert job.result(timeout=TIMEOUT_S) == answer


@pytest.mark.parametrize("reply", [b"", b"?\r\n"])
def test_a_failed_acknowledgement_is_one_sentence_in_the_log_and_the_job_keeps_its_answer(
    reply: bytes, start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer
) -> None:
    with MeddlingLink(own_valkey.port, digest(ACKNOWLEDGE).encode()) as link, own_valkey.connect() as broker:
        link.replies += [reply] * 8  # more than redis-py's own attempts
        url = own_valkey.url(0, "worker").replace(f":{own_valkey.port}/", f":{link.port}/")
        worker = start_worker("cut-off", NAMESHOT_BROKER_URL=url)
        job = client.submit(origin.url("/owl.png"), LABELS)
        answer = job.result(timeout=TIMEOUT_S)
        eventually(lambda: "could not acknowledge a message" in worker.log)
        link.replies.clear()
        (name,) = broker.smembers("nameshot:workers")
        eventually(lambda: not broker.hlen(in_flight_key("nameshot", name.decode())))

        assert job.result(timeout=TIMEOUT_S) == answer
        assert "CRITICAL" not in worker.log
        assert "Traceback" not in worker.log


def test_a_message_that_takes_long_to_arrive_is_not_counted_as_lost(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer, times: Times
) -> None:
    job_id = "long-under-way"
    slow_s = 4 * times.round_s
    with SlowLink(own_valkey.port, b'"' + job_id.encode() + b'"', slow_s) as link:
        url = own_valkey.url(0, "worker").replace(f":{own_valkey.port}/", f":{link.port}/")
        worker = start_worker("patient", NAMESHOT_BROKER_URL=url)

        assert client.submit(origin.url("/owl.png"), LABELS, job_id=job_id).result(timeout=TIMEOUT_S).ranking

    assert link.has_arrived.is_set()
    assert "got lost" not in worker.log
