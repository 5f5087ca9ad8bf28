"""An id may be any printable text; deaths and marks recorded under it are never those of another job."""

import json

import pytest
import redis

from tests.delivery.moves import OURS, QUEUE, reclaim, take
from tests.valkey_server import ValkeyServer
from worker.delivery.marks import Marks
from worker.delivery.names import new_tag
from worker.delivery.suspects import Suspects
from worker.delivery.taken import Deaths


@pytest.fixture
def broker(valkey: ValkeyServer) -> redis.Redis:
    broker = valkey.connect()
    broker.set(OURS.lease, 1)
    broker.sadd(OURS.workers, OURS.worker)
    return broker


def message(job_id: str) -> bytes:
    return json.dumps({"headers": {"id": job_id, "task": "nameshot.classify"}}).encode()


def test_no_id_can_be_confused_with_the_records_of_another_job(broker: redis.Redis) -> None:
    broker.hset(OURS.suspects, mapping={"x": 2, "alone x": 1, "alone x 7": 3})
    strange = ["alone x", "alone x 7", "x 7"]
    broker.lpush(QUEUE, *map(message, strange))
    assert [take(broker, new_tag())[2:4] for _ in strange] == [[0, 0]] * 3
    broker.set(OURS.alone, "x 7")

    assert reclaim(broker, "dead") == 3
    assert broker.hgetall(OURS.suspects) == {b"x": b"2", b"alone x": b"1", b"alone x 7": b"3"}


def test_blame_and_acquittal_of_an_id_with_blanks_affect_no_other_id(broker: redis.Redis) -> None:
    suspects = Suspects(broker, OURS, max_attempts=3)
    suspect = suspects.examine("alone x", "default", Deaths(2), lambda *_: None)
    assert suspect is not None
    for is_blamed in (False, True):
        broker.lpush(QUEUE, message("alone x"), message("x"))
        take(broker, new_tag())
        take(broker, new_tag())
        marks = Marks(broker, OURS)
        if is_blamed:
            marks.blame("alone x")
        with marks.alone(suspect.mark):
            assert reclaim(broker, "dead") == 2
        broker.delete(QUEUE)
        broker.set(OURS.lease, 1)
        broker.sadd(OURS.workers, OURS.worker)

    broker.lpush(QUEUE, message("x"), message("alone x"))
    assert [take(broker, new_tag())[2:4] for _ in range(2)] == [[0, 0], [2, 2]]
    suspects.acquit("alone x")
    assert not broker.exists(OURS.suspects)


def test_a_job_with_the_id_draining_is_not_confused_with_the_mark_of_a_draining_worker(broker: redis.Redis) -> None:
    broker.lpush(QUEUE, message("draining"))
    take(broker, "tag")
    Marks(broker, OURS).drain()

    assert reclaim(broker, "dead") == 1
    assert not broker.exists(OURS.suspects)
