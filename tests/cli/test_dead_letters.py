"""`dead-letters list`, `show` and `replay` with a real Valkey, without a worker."""

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from producer import Client, JobConflict
from producer.contract.names import dead_letters_key
from tests.cli.command import Home
from tests.delivery.hands import give_up, misread
from tests.valkey_server import ValkeyServer

URL = "http://example.com/owl.png?signature=secret"
LABELS = ["hush", "owl"]


@pytest.fixture
def broker(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with valkey.connect() as broker:
        yield broker


@pytest.fixture
def with_valkey(home: Home, valkey: ValkeyServer) -> Home:
    """A user with the worker's role, which replaying requires."""
    return home.with_settings(**valkey.settings("worker"))


@pytest.fixture
def client(valkey: ValkeyServer) -> Iterator[Client]:
    with Client(valkey.broker_url, valkey.result_backend) as client:
        yield client


@pytest.fixture
def poisoned(client: Client, broker: redis.Redis) -> dict[str, Any]:
    """The message of a poisoned job, whose dead letter is in Redis."""
    client.submit(URL, LABELS, job_id="a-job", expires_in=600)
    message: dict[str, Any] = json.loads(give_up(broker, "a-job"))
    return message


def letters(user: Home) -> list[dict[str, Any]]:
    return user.run("dead-letters", "list", "--json").json_lines


def waiting(broker: redis.Redis) -> list[dict[str, Any]]:
    """Return the messages of the default queue, in the order in which workers take them."""
    return [json.loads(raw) for raw in broker.lrange("nameshot.default", 0, -1)][::-1]


def test_without_dead_letters_the_list_says_so(with_valkey: Home) -> None:
    done = with_valkey.run("dead-letters", "list")

    assert (done.status, done.out) == (0, "")
    assert done.sentence == "there are no dead letters."
    assert letters(with_valkey) == []


@pytest.mark.usefixtures("poisoned")
def test_the_list_is_newest_first_and_shows_neither_urls_nor_labels(with_valkey: Home, broker: redis.Redis) -> None:
    misread(broker, b"hush")

    done = with_valkey.run("dead-letters", "list")
    malformed, poisoned = letters(with_valkey)

    assert (done.status, done.err) == (0, "")
    header, first, second = done.out.splitlines()
    assert header.split() == ["LETTER", "AT", "CODE", "DEATHS", "QUEUE", "JOB"]
    assert first.split() == [malformed["letter"], malformed["at"], "malformed", "0", "nameshot.default", "–"]
    assert second.split() == [poisoned["letter"], poisoned["at"], "poisoned", "3", "nameshot.default", "a-job"]
    for secret in ("http", "secret", "hush", "owl"):
        assert secret not in done.out + json.dumps([malformed, poisoned])
    given_up = datetime.fromisoformat(poisoned["at"])
    assert given_up.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - given_up) < timedelta(minutes=2)


@pytest.mark.usefixtures("poisoned")
def test_one_letter_is_shown_by_its_id(with_valkey: Home) -> None:
    (letter,) = letters(with_valkey)

    done = with_valkey.run("dead-letters", "show", letter["letter"])

    assert dict(line.split(maxsplit=1) for line in done.out.splitlines()) == {
        f"{name}:": str(value) for name, value in letter.items()
    }
    assert with_valkey.run("dead-letters", "show", letter["letter"], "--json").json_lines == [letter]


def test_a_replayed_message_is_the_old_one_as_a_new_job(
    with_valkey: Home, broker: redis.Redis, client: Client, poisoned: dict[str, Any]
) -> None:
    (letter,) = letters(with_valkey)

    done = with_valkey.run("dead-letters", "replay", letter["letter"])

    new_id = done.out.strip()
    (message,) = waiting(broker)
    headers, properties = message["headers"], message["properties"]
    assert new_id == headers["id"] == headers["root_id"] == properties["correlation_id"]
    assert headers["nameshot_sent_at"] > poisoned["headers"]["nameshot_sent_at"]
    assert message["body"] == poisoned["body"]
    assert {name for name in headers if headers[name] != poisoned["headers"][name]} == {
        *("id", "root_id", "nameshot_sent_at")
    }
    assert not letters(with_valkey)
    assert client.job(new_id).status() == "queued"
    assert client.submit(URL, LABELS, job_id=new_id).id == new_id
    assert len(waiting(broker)) == 1
    with pytest.raises(JobConflict):
        client.submit(URL, ["another"], job_id=new_id)


@pytest.mark.usefixtures("poisoned")
def test_a_letter_is_replayed_once(with_valkey: Home, broker: redis.Redis) -> None:
    (letter,) = letters(with_valkey)
    with_valkey.run("dead-letters", "replay", letter["letter"], letter["letter"])

    again = with_valkey.run("dead-letters", "replay", letter["letter"])

    assert (again.status, again.out) == (1, "")
    assert again.sentence.startswith(f"there is no dead letter '{letter['letter']}', or it was already replayed;")
    assert len(waiting(broker)) == 1


def test_all_letters_are_replayed_oldest_first_except_malformed_ones(
    with_valkey: Home, broker: redis.Redis, client: Client
) -> None:
    for label in ("first", "second", "third"):
        job = client.submit(URL, [label])
        give_up(broker, job.id)
    misread(broker, b"null")

    done = with_valkey.run("dead-letters", "replay", "--all")

    assert done.status == 0
    assert done.sentence == "kept malformed letters, which cannot be replayed: 1."
    messages = waiting(broker)
    assert done.out.split() == [message["headers"]["id"] for message in messages]
    asked = [json.loads(base64.b64decode(message["body"]))[1]["candidate_labels"] for message in messages]
    assert asked == [["first"], ["second"], ["third"]]
    assert [letter["code"] for letter in letters(with_valkey)] == ["malformed"]


@pytest.mark.usefixtures("poisoned")
def test_no_letter_is_replayed_if_one_of_the_named_letters_cannot_be(with_valkey: Home, broker: redis.Redis) -> None:
    misread(broker, b"null")
    malformed, poisoned = (letter["letter"] for letter in letters(with_valkey))

    done = with_valkey.run("dead-letters", "replay", poisoned, malformed)

    assert (done.status, done.out) == (1, "")
    assert done.sentence.startswith(f"letter {malformed} is malformed and cannot be replayed,")
    assert not waiting(broker)
    assert len(letters(with_valkey)) == 2


@pytest.mark.usefixtures("poisoned")
def test_a_letter_stays_while_its_queue_is_full(with_valkey: Home, broker: redis.Redis, client: Client) -> None:
    (letter,) = letters(with_valkey)
    client.submit(URL, LABELS)

    done = with_valkey.with_settings(NAMESHOT_MAX_QUEUE="1").run("dead-letters", "replay", letter["letter"])

    assert (done.status, done.out) == (1, "")
    assert f"letter {letter['letter']} is kept; try again in 5 s" in done.sentence
    assert letters(with_valkey) == [letter]
    assert len(waiting(broker)) == 1


@pytest.mark.parametrize("arguments", [("show", "nobody"), ("replay", "nobody")])
def test_an_unknown_letter_is_reported_in_one_sentence(with_valkey: Home, arguments: tuple[str, ...]) -> None:
    done = with_valkey.run("dead-letters", *arguments)

    assert (done.status, done.out) == (1, "")
    assert done.sentence.startswith("there is no dead letter 'nobody'")


@pytest.mark.parametrize("arguments", [("replay",), ("replay", "a-letter", "--all"), ("show",), ()])
def test_a_wrong_use_is_reported_in_one_sentence(with_valkey: Home, arguments: tuple[str, ...]) -> None:
    done = with_valkey.run("dead-letters", *arguments)

    assert (done.status, done.out) == (2, "")
    assert done.sentence


@pytest.mark.parametrize("record", ["null", "{}", "[" * 100_000], ids=["null", "empty", "too deep"])
def test_a_list_that_holds_something_else_is_reported_in_one_sentence(
    record: str, with_valkey: Home, broker: redis.Redis
) -> None:
    broker.lpush(dead_letters_key("nameshot"), record)

    done = with_valkey.run("dead-letters", "list")

    assert (done.status, done.out) == (1, "")
    assert done.sentence.startswith("the list of dead letters contains an entry that no worker wrote")


def test_a_missing_redis_is_reported_in_one_sentence(home: Home) -> None:
    done = home.with_settings(NAMESHOT_BROKER_URL="redis://127.0.0.1:1/0").run("dead-letters", "list")

    assert done.status == 1
    assert "cannot be reached" in done.sentence
