"""`dead-letters replay` of messages in every form that a worker reads, with a real Valkey, without a worker."""

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from producer import Client
from producer.errors import JobConflict
from tests.cli.command import Home
from tests.delivery.hands import KEYS, give_up, hold
from tests.valkey_server import ValkeyServer
from worker.delivery.dead_letters import DeadLetters

URL = "http://example.com/owl.png"
SHORT = {"content-type": "application/json", "headers": {"task": "nameshot.classify", "id": "a-job"}}
ARGUMENTS = {"image": URL, "candidate_labels": ["fox", "owl"]}
BULK = {"images": [f"{URL}?{number}" for number in range(3)], "candidate_labels": ["fox", "owl"]}


@pytest.fixture
def broker(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with valkey.connect() as broker:
        yield broker


@pytest.fixture
def client(valkey: ValkeyServer) -> Iterator[Client]:
    with Client(valkey.broker_url, valkey.result_backend) as client:
        yield client


@pytest.fixture
def operator(home: Home, valkey: ValkeyServer) -> Home:
    """A user with the worker's role, which replaying requires."""
    return home.with_settings(**valkey.settings("worker"))


def short(arguments: dict[str, Any], **headers: Any) -> bytes:
    """Return a message in the short form of docs/wire-format.md."""
    body = json.dumps([[], arguments, {}])
    return json.dumps({**SHORT, "body": body, "headers": {**SHORT["headers"], **headers}}).encode()  # type: ignore[dict-item]


def waiting(broker: redis.Redis, queue: str = "nameshot.default") -> list[dict[str, Any]]:
    return [json.loads(raw) for raw in broker.lrange(queue, 0, -1)][::-1]


def test_a_message_in_the_short_form_is_replayed(operator: Home, broker: redis.Redis, client: Client) -> None:
    give_up(broker, "a-job", short(ARGUMENTS))

    done = operator.run("dead-letters", "replay", "--all")

    assert (done.status, done.err) == (0, "")
    new_id = done.out.strip()
    (message,) = waiting(broker)
    assert message["headers"]["id"] == new_id != "a-job"
    assert json.loads(message["body"])[1] == ARGUMENTS
    job = client.job(new_id)
    assert (job.status(), job.position()) == ("queued", 0)
    assert not client.submit(URL, ["fox", "owl"], job_id=new_id).is_new
    with pytest.raises(JobConflict):
        client.submit(URL, ["another"], job_id=new_id)
    place = broker.get(f"nameshot:claim:{new_id}:place")
    assert isinstance(place, bytes)
    assert place.decode() == f"default 1 {message['properties']['delivery_tag']}"


@pytest.mark.parametrize("encoding", [None, "base64"])
def test_only_the_poisoned_image_of_a_bulk_message_is_replayed_in_either_encoding_of_the_body(
    encoding: str | None, operator: Home, broker: redis.Redis
) -> None:
    envelope = json.loads(short(BULK, task="nameshot.classify_many"))
    if encoding:
        envelope["body"] = base64.b64encode(envelope["body"].encode()).decode()
        envelope["properties"] = {"body_encoding": encoding}
    raw = json.dumps(envelope).encode()
    letters = DeadLetters(broker, KEYS)
    tag = hold(broker, raw, "nameshot.bulk")
    letters.poisoned(tag, job_id="a-job", task="nameshot.classify_many", deaths=3, image=1)

    operator.run("dead-letters", "replay", "--all")

    (message,) = waiting(broker, "nameshot.bulk")
    body = base64.b64decode(message["body"]) if encoding else message["body"]
    assert json.loads(body)[1] == {**BULK, "images": [f"{URL}?1"]}


def moment(seconds: float, zone: bool = True) -> str:
    at = datetime.now(UTC) + timedelta(seconds=seconds)
    return (at if zone else at.replace(tzinfo=None)).isoformat()


@pytest.mark.parametrize(
    "expires", [moment(-60), moment(-60, zone=False), moment(20)], ids=["past", "past in no zone", "soon"]
)
def test_an_expired_message_is_replayed_without_an_expiry_and_the_command_says_so(
    expires: str, operator: Home, broker: redis.Redis
) -> None:
    give_up(broker, "a-job", short(ARGUMENTS, expires=expires))

    done = operator.run("dead-letters", "replay", "--all")

    assert done.status == 0
    assert done.sentence.endswith("has expired or would expire soon, so its new job does not expire.")
    (message,) = waiting(broker)
    assert message["headers"]["expires"] is None


def test_an_expired_message_of_our_client_loses_its_expiry_in_headers_and_properties(
    operator: Home, broker: redis.Redis, client: Client
) -> None:
    client.submit(URL, ["owl"], job_id="a-job", expires_in=0.001)
    give_up(broker, "a-job")

    operator.run("dead-letters", "replay", "--all")

    (message,) = waiting(broker)
    assert message["headers"]["expires"] is None
    assert "expiration" not in message["properties"]


def test_a_message_that_waited_with_a_priority_goes_back_to_its_queue(operator: Home, broker: redis.Redis) -> None:
    tag = hold(broker, short(ARGUMENTS), "nameshot.high\x06\x165")
    DeadLetters(broker, KEYS).poisoned(tag, job_id="a-job", task="nameshot.classify", deaths=3)

    operator.run("dead-letters", "replay", "--all")

    assert len(waiting(broker, "nameshot.high")) == 1


def test_a_letter_that_cannot_be_replayed_stays_and_the_others_are_replayed(
    operator: Home, broker: redis.Redis
) -> None:
    elsewhere = hold(broker, short(ARGUMENTS, id="elsewhere"), "another.queue")
    DeadLetters(broker, KEYS).poisoned(elsewhere, job_id="elsewhere", task="nameshot.classify", deaths=3)
    for number, raw in enumerate((b"[]", b'{"headers": 7}', json.dumps({**SHORT, "body": 7}).encode())):
        give_up(broker, f"strange-{number}", raw)
    give_up(broker, "a-job", short(ARGUMENTS))

    done = operator.run("dead-letters", "replay", "--all")

    assert done.status == 1
    assert len(done.out.split()) == len(waiting(broker)) == 1
    first, *strange = done.err.splitlines()
    assert "waited in 'another.queue', which is not a queue of 'nameshot'" in first
    assert len(strange) == 3
    assert all("because no worker can read its message" in line for line in strange)
    assert len(operator.run("dead-letters", "list", "--json").json_lines) == 4


def test_ids_are_listed_in_full_on_a_narrow_terminal(operator: Home, broker: redis.Redis) -> None:
    job_id = "order-" + "x" * 120
    give_up(broker, job_id, short(ARGUMENTS, id=job_id))

    shown = operator.with_settings(COLUMNS="40").run("dead-letters", "list").out

    (letter,) = operator.run("dead-letters", "list", "--json").json_lines
    assert letter["letter"] in shown
    assert job_id in shown
    assert operator.run("dead-letters", "show", shown.splitlines()[1].split()[0]).status == 0
