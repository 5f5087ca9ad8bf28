"""A connection that breaks at the wrong moment: the message is recorded as a worker's, and the worker knows nothing."""

from producer import Client
from producer.contract import in_flight_key, in_hand_key
from tests.acceptance.origin import Origin
from tests.delivery.conftest import StartWorker
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer

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
