"""The mark in Redis that explains a worker's death: the suspect that it runs alone, or that it is leaving."""

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


def test_the_mark_exists_only_while_a_suspect_runs_alone(marks: Marks, broker: redis.Redis) -> None:
    with marks.alone("job 7"):
        assert broker.get(KEYS.alone) == b"job 7"
        assert 0 < broker.pttl(KEYS.alone) <= MARK_S * 1000
    assert not broker.exists(KEYS.alone)


def test_the_mark_of_a_leaving_worker_names_a_suspect_only_while_it_runs_alone(
    marks: Marks, broker: redis.Redis
) -> None:
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


def test_a_mark_that_could_not_be_written_is_written_once_redis_is_back(
    marks: Marks, broker: redis.Redis, own_valkey: ValkeyServer
) -> None:
    with marks.alone("job"):
        own_valkey.stop()
    own_valkey.start()
    with marks.alone("next"):  # the worker still thinks that Redis is down
        eventually(lambda: broker.get(KEYS.alone) == b"next")
    eventually(lambda: not broker.exists(KEYS.alone))


def test_after_a_worker_has_blamed_a_job_its_mark_does_not_change(marks: Marks, broker: redis.Redis) -> None:
    with marks.alone("job"):
        marks.blame("culprit")
    assert broker.get(KEYS.alone) == b"culprit"
