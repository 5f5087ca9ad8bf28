"""Redis reads no message that would keep it from serving others."""

import pytest
import redis

from tests.delivery.moves import OURS, QUEUE, reclaim, take
from tests.valkey_server import ValkeyServer
from worker.delivery.envelope import MAX_MESSAGE_BYTES
from worker.strict_json import MAX_PARTS


@pytest.fixture
def broker(valkey: ValkeyServer) -> redis.Redis:
    broker = valkey.connect()
    broker.set(OURS.lease, 1)
    broker.sadd(OURS.workers, OURS.worker)
    return broker


#: Two megabytes or more of what takes a reader long.
LARGE = {
    "numbers": "[" + "1," * 2_000_000 + "1]",
    "arrays": "[" + "[],[[[[]]]]," * 200_000 + "1]",
    "names": "{" + ",".join(f'"{number:070}": 1' for number in range(40_000)) + "}",
    "surrogates": '"' + "\\ud83d" * 600_000 + '"',
}


@pytest.mark.parametrize("text", LARGE.values(), ids=LARGE)
def test_redis_reads_nothing_of_a_message_that_would_keep_it_busy(broker: redis.Redis, text: str) -> None:
    raw = b'{"headers": {"id": "an-id"}, "x": ' + text.encode() + b"}"
    assert len(raw) < MAX_MESSAGE_BYTES
    broker.lpush(QUEUE, raw)

    assert take(broker, "tag") == [QUEUE.encode(), raw, 0, 0, len(raw), b"tag", b""]
    assert reclaim(broker, "dead") == 1
    assert not broker.exists(OURS.suspects)


@pytest.mark.parametrize("size", [MAX_PARTS, 100_000, MAX_MESSAGE_BYTES, 4 * MAX_MESSAGE_BYTES - 1_000])
def test_the_id_of_a_message_with_one_long_string_is_read_however_long_it_is(broker: redis.Redis, size: int) -> None:
    raw = b'{"body": "' + b"x" * size + b'", "headers": {"id": "a \\"printable\\" id"}, "properties": {}}'
    broker.lpush(QUEUE, raw)

    assert take(broker, "tag")[6] == b'a\n"printable"\nid'
