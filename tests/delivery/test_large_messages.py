"""A script reads no message that would keep Redis busy for long."""

import json

import pytest
import redis

from producer.contract.names import rung_name, step_names
from producer.contract.strict_json import MAX_PARTS
from tests.delivery.moves import OURS, QUEUE, postpone, reclaim, resume_a_part, take
from tests.valkey_server import ValkeyServer
from worker.delivery.envelope import MAX_MESSAGE_BYTES
from worker.delivery.letter_records import arguments, malformed_record
from worker.delivery.scripts import BURY
from worker.delivery.upkeep_scripts import MOVE_STEPS


@pytest.fixture
def broker(valkey: ValkeyServer) -> redis.Redis:
    broker = valkey.connect()
    broker.set(OURS.lease, 1)
    broker.sadd(OURS.workers, OURS.worker)
    return broker


#: Texts of two megabytes or more that take a parser long.
LARGE = {
    "numbers": "[" + "1," * 2_000_000 + "1]",
    "arrays": "[" + "[],[[[[]]]]," * 200_000 + "1]",
    "names": "{" + ",".join(f'"{number:070}": 1' for number in range(40_000)) + "}",
    "surrogates": '"' + "\\ud83d" * 600_000 + '"',
}


@pytest.mark.parametrize("text", LARGE.values(), ids=LARGE)
def test_scripts_do_not_parse_a_message_that_would_keep_redis_busy(broker: redis.Redis, text: str) -> None:
    raw = b'{"headers": {"id": "an-id"}, "x": ' + text.encode() + b"}"
    assert len(raw) < MAX_MESSAGE_BYTES
    broker.lpush(QUEUE, raw)

    assert take(broker, "tag") == [QUEUE.encode(), raw, 0, 0, len(raw), b"tag", b""]
    assert reclaim(broker, "dead") == 1
    assert not broker.exists(OURS.suspects)


@pytest.mark.parametrize("size", [MAX_PARTS, 100_000, MAX_MESSAGE_BYTES, 4 * MAX_MESSAGE_BYTES - 1_000])
def test_the_id_of_a_message_with_a_long_string_is_read_whatever_the_length(broker: redis.Redis, size: int) -> None:
    raw = b'{"body": "' + b"x" * size + b'", "headers": {"id": "a \\"printable\\" id"}, "properties": {}}'
    broker.lpush(QUEUE, raw)

    assert take(broker, "tag")[6] == b'a\n"printable"\nid'


def test_redis_keeps_only_the_beginning_of_a_far_too_large_message_and_its_dead_letter_has_the_full_size(
    broker: redis.Redis,
) -> None:
    size = 4 * MAX_MESSAGE_BYTES + 1
    broker.lpush(QUEUE, b"x" * size)

    assert take(broker, "tag") == [QUEUE.encode(), b"", 0, 0, size, b"tag", b""]
    assert broker.hstrlen(OURS.in_flight, "tag") < MAX_MESSAGE_BYTES + 100
    broker.eval(BURY, *arguments(OURS, "tag", malformed_record(size_bytes=size), apart="tag", then="forget"))
    (letter,) = broker.lrange(OURS.dead_letters, 0, -1)
    assert json.loads(letter)["bytes"] == size


def test_no_script_moves_many_large_messages_that_were_postponed_or_have_a_priority(broker: redis.Redis) -> None:
    large = [message.ljust(MAX_MESSAGE_BYTES) for message in (b"a", b"b", b"c")]
    broker.lpush(QUEUE, *large)
    for due_s, tag in enumerate("abc"):
        postpone(broker, take(broker, tag)[5], due_s)

    assert [resume_a_part(broker) for _ in range(3)] == [2, 1, 0]
    assert sorted(broker.lrange(QUEUE, 0, -1)) == large

    step = step_names(QUEUE)[0]
    broker.rename(QUEUE, step)
    names = (QUEUE, rung_name(QUEUE), *step_names(QUEUE))
    assert broker.eval(MOVE_STEPS, len(names), *names, 100) == 2
    assert (broker.llen(step), broker.llen(QUEUE)) == (1, 2)
