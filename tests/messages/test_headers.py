"""A message may carry the id of the HTTP request that submitted its job, which changes nothing else of the message."""

from datetime import UTC, datetime

import pytest

from producer import Client
from producer.contract.request_id import REQUEST_ID_HEADER
from producer.errors import InvalidJob
from producer.messages.submission import MessageWriter
from tests.messages.dated import dated
from worker.delivery.envelope import read_envelope
from worker.jobs.messages import TaskMessage, read_message

URL, LABELS = "https://images.example/owl.png", ["fox", "owl"]
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def read(message: bytes) -> TaskMessage:
    """Read a message as a worker does."""
    envelope = read_envelope(message, tag="a-tag", queue="nameshot.default")
    assert envelope
    return read_message(envelope["headers"], envelope["content-type"], envelope["body"], NOW)


def test_a_worker_reads_the_request_id_of_a_message_and_the_same_job() -> None:
    single = MessageWriter("nameshot", 60).single(URL, LABELS, job_id="owl-1")
    times = {"sent_at_s": NOW.timestamp(), "expires_at": datetime(2026, 3, 2, tzinfo=UTC)}

    without, named = (
        read(dated(message, **times))  # type: ignore[arg-type]  # the types of both values are right
        for message in (single.message, single.message.with_header(REQUEST_ID_HEADER, "a-Request.1_x"))
    )

    assert named.headers[REQUEST_ID_HEADER] == "a-Request.1_x"
    assert without.headers[REQUEST_ID_HEADER] is None
    assert (named.args, named.kwargs) == (without.args, without.kwargs)
    taken = "nameshot_taken"
    assert {**named.headers, REQUEST_ID_HEADER: None, taken: None} == {**without.headers, taken: None}


def test_no_call_of_the_public_clients_offers_a_request_id() -> None:
    with Client("redis://127.0.0.1:1/0", "redis://127.0.0.1:1/0") as client:  # no Redis listens there
        with pytest.raises(TypeError, match="request_id"):
            client.submit(URL, LABELS, request_id="a")  # type: ignore[arg-type]  # the test is about this
        with pytest.raises(InvalidJob, match="unknown argument 'request_id'"):
            client.submit_many([{"url": URL, "labels": LABELS, "request_id": "a"}])
