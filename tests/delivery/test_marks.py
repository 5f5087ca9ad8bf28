"""What a worker says of its own death, in Redis: which suspect runs alone, or that it is leaving."""

from collections.abc import Iterator

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.delivery.hands import KEYS
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer
from worker.delivery.marks import DRAINING, MARK_S, Marks


@pytest.fixture
def broker(own_valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with own_valkey.connect() as broker:
        yield broker


@pytest.fixture
def marks(own_valkey: ValkeyServer) -> Iterator[Marks]:
    once = Retry(NoBackoff(), 0)
    with redis.Redis.from_url(own_valkey.url(0), socket_timeout=1, socket_connect_timeout=1, retry=once) as client:
        marks = Marks(client, KEYS)
        yield marks
        marks.close()


def test_the_mark_stands_while_a_suspect_runs_alone_and_no_longer(marks: Marks, broker: redis.Redis) -> None:
    with marks.alone("job 7"):
        assert broker.get(KEYS.alone) == b"job 7"
        assert 0 < broker.pttl(KEYS.alone) <= MARK_S * 1000
    assert not broker.exists(KEYS.alone)


def test_a_worker_that_leaves_says_so_except_while_a_suspect_runs_alone(marks: Marks, broker: redis.Redis) -> None:
    with marks.alone("job"):
        marks.drain()
        assert broker.get(KEYS.alone) == b"job"
    assert broker.get(KEYS.alone) == DRAINING.encode()
    with marks.alone("another"):
        assert broker.get(KEYS.alone) == b"another"
    assert broker.get(KEYS.alone) == DRAINING.encode()


def test_a_worker_that_has_left_leaves_no_mark_behind(marks: Marks, broker: redis.Redis) -> None:
    marks.close()
    marks.drain()
    with marks.alone("job"):
        pass
    assert not broker.exists(KEYS.alone)


def test_a_mark_needs_no_memory(marks: Marks, broker: redis.Redis) -> None:
    broker.config_set("maxmemory", 1)
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        broker.set("any", "thing")

    with marks.alone("job"):
        assert broker.get(KEYS.alone) == b"job"
    marks.drain()
    assert broker.get(KEYS.alone) == DRAINING.encode()
    marks.blame("culprit")
    assert broker.get(KEYS.alone) == b"culprit"


def test_what_could_not_be_said_is_said_once_redis_is_back(
    marks: Marks, broker: redis.Redis, own_valkey: ValkeyServer
) -> None:
    with marks.alone("job"):
        own_valkey.stop()
    own_valkey.start()
    with marks.alone("next"):  # begun while Redis was thought to be away
        eventually(lambda: broker.get(KEYS.alone) == b"next")
    eventually(lambda: not broker.exists(KEYS.alone))


def test_nothing_is_said_after_a_job_was_blamed(marks: Marks, broker: redis.Redis) -> None:
    with marks.alone("job"):
        marks.blame("culprit")
    assert broker.get(KEYS.alone) == b"culprit"
