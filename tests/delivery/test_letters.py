"""The list of dead letters in a real Valkey."""

import json
import logging
from collections.abc import Iterator

import pytest
import redis

from tests.delivery.hands import KEYS, give_up, hold, misread
from tests.valkey_server import ValkeyServer
from worker.delivery import dead_letters
from worker.delivery.dead_letters import DeadLetters
from worker.delivery.letter_records import MAX_LETTERS


@pytest.fixture
def broker(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with valkey.connect() as broker:
        yield broker


def records(broker: redis.Redis) -> list[dict[str, object]]:
    return [json.loads(record) for record in broker.lrange(KEYS.dead_letters, 0, -1)]


def test_the_newest_thousand_dead_letters_are_kept_and_the_messages_of_older_ones_are_deleted(
    broker: redis.Redis,
) -> None:
    for number in range(MAX_LETTERS + 5):
        give_up(broker, f"job-{number}", f"message {number}".encode())

    kept = records(broker)

    assert [record["id"] for record in kept] == [f"job-{number}" for number in range(MAX_LETTERS + 4, 4, -1)]
    messages = broker.hgetall(KEYS.dead_letter_messages)
    assert set(messages) == {str(record["letter"]).encode() for record in kept}
    assert set(messages.values()) == {f"message {number}".encode() for number in range(5, MAX_LETTERS + 5)}


def test_a_dead_letter_keeps_the_message_byte_by_byte_and_leaves_it_in_hand_until_it_is_acknowledged(
    broker: redis.Redis,
) -> None:
    raw = bytes(range(256)) + b"\nnameshot.high\n"

    give_up(broker, "a-job", raw)

    (record,) = records(broker)
    assert record["bytes"] == len(raw)
    assert record["queue"] == "nameshot.default"
    assert broker.hget(KEYS.dead_letter_messages, str(record["letter"])) == raw
    assert broker.hlen(KEYS.in_flight) == 1


def test_a_poisoned_job_or_image_found_again_has_one_dead_letter(broker: redis.Redis) -> None:
    for image in (None, None, 0, 0, 7):
        give_up(broker, "a-job", b"message", image=image)

    assert [record.get("image", "none") for record in records(broker)] == [7, 0, "none"]


def test_the_same_junk_sent_again_has_another_dead_letter(broker: redis.Redis) -> None:
    for _ in range(2):
        misread(broker, b"null")

    first, second = records(broker)
    assert first["letter"] != second["letter"]


def test_a_message_that_another_worker_holds_by_now_does_not_become_a_dead_letter(broker: redis.Redis) -> None:
    DeadLetters(broker, KEYS).poisoned("a-lost-tag", job_id="a-job", task="nameshot.classify", deaths=3)

    assert not records(broker)


@pytest.mark.parametrize("trouble", ["away", "wrong type"])
def test_if_a_dead_letter_cannot_be_stored_the_worker_logs_one_warning_without_content(
    own_valkey: ValkeyServer, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    with own_valkey.connect() as broker, caplog.at_level(logging.DEBUG, dead_letters.__name__):
        tag = hold(broker, b"secret")
        broker.set(KEYS.dead_letters, "no list")
        if trouble == "away":
            own_valkey.stop()

        DeadLetters(broker, KEYS).poisoned(tag, job_id="a-job", task="nameshot.classify", deaths=3)

    (line,) = caplog.messages
    assert line.startswith("could not store a poisoned message as a dead letter: ")
    assert "secret" not in line
