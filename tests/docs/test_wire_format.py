"""The messages on the page about the wire format are what the client sends, and what a worker reads."""

import json
import re
from base64 import b64decode
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from producer import Client
from tests.valkey_server import ValkeyServer
from worker.delivery.envelope import read_envelope
from worker.jobs.messages import TaskMessage, read_message

PAGE = (Path(__file__).parents[2] / "docs" / "wire-format.md").read_text()


def example(name: str) -> Any:
    found = re.search(rf"<!-- {name} -->\n```json\n(.*?)```", PAGE, flags=re.DOTALL)
    assert found
    return json.loads(found[1])


def read(message: Any) -> TaskMessage:
    """Read a message as a worker does."""
    envelope = read_envelope(json.dumps(message).encode(), tag="a-tag", queue="nameshot.default")
    assert envelope
    return read_message(envelope["headers"], envelope["content-type"], envelope["body"], datetime.now(UTC))


def test_the_message_is_the_client_s_except_for_sender_time_and_delivery_tag(valkey: ValkeyServer) -> None:
    with Client(valkey.broker_url, valkey.result_backend) as client, valkey.connect() as broker:
        client.submit("https://images.example/owl.jpg", ["fox", "owl"], job_id="owl-1")
        sent = json.loads(broker.lindex("nameshot.default", 0))

    shown = example("message")
    for part, name in (("headers", "origin"), ("headers", "nameshot_sent_at"), ("properties", "delivery_tag")):
        assert type(sent[part].pop(name)) is type(shown[part].pop(name))
    assert sent == shown


def test_the_message_s_body_decodes_to_the_body_on_the_page() -> None:
    assert json.loads(b64decode(example("message")["body"])) == example("body")


def test_the_short_message_is_the_same_job_for_a_worker() -> None:
    whole, short = read(example("message")), read(example("short message"))

    assert (short.kwargs, short.headers["id"], short.headers["task"]) == (whole.kwargs, "owl-1", "nameshot.classify")
    assert short.kwargs == example("body")[1]
