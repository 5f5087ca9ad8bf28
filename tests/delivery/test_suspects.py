"""A suspicion is lifted when the suspect's answer stands, and not before."""

import math

import pytest
import redis

from producer.errors import JobFailed
from tests.delivery.hands import KEYS
from tests.valkey_server import ValkeyServer
from worker.cancel_scope import Cancelled, CancelScope
from worker.delivery.suspects import Deaths, Suspects

MAX_ATTEMPTS = 3


def suspects(broker: redis.Redis) -> Suspects:
    return Suspects(broker, KEYS, max_attempts=MAX_ATTEMPTS)


def keep_no_letter(_deaths: int, _image: int | None) -> None:
    """Nobody reads it here."""


def test_a_poisoned_job_is_still_poisoned_while_its_failure_is_not_stored(valkey: ValkeyServer) -> None:
    with valkey.connect() as broker:
        broker.hset(KEYS.suspects, mapping={"job": MAX_ATTEMPTS, "alone job": 1})
        watch = suspects(broker)

        with (
            pytest.raises(JobFailed, match="poisoned"),
            watch.guard("job", Deaths(MAX_ATTEMPTS, 1), keep_no_letter, CancelScope(math.inf)),
        ):
            pytest.fail("it ran")
        assert broker.hgetall(KEYS.suspects) == {b"job": b"3", b"alone job": b"1"}

        watch.acquit("job")
        assert not broker.exists(KEYS.suspects)


def test_a_bulk_job_is_acquitted_with_its_images(valkey: ValkeyServer) -> None:
    with valkey.connect() as broker:
        broker.hset(KEYS.suspects, mapping={"job": 1, "alone job 1": 1})
        watch = suspects(broker)

        with watch.guard("job", Deaths(1), keep_no_letter, CancelScope(math.inf)) as escort:
            assert escort is not None
            for number in range(2):
                with escort(number):
                    assert broker.get(KEYS.alone) == f"job {number}".encode()
        assert not broker.exists(KEYS.alone)
        assert broker.hlen(KEYS.suspects) == 2

        watch.acquit("job")
        assert not broker.exists(KEYS.suspects)


def test_a_suspect_that_is_cancelled_before_its_turn_blames_nobody(valkey: ValkeyServer) -> None:
    with valkey.connect() as broker:
        scope = CancelScope(math.inf)
        scope.cancel()

        with pytest.raises(Cancelled), suspects(broker).guard("job", Deaths(1), keep_no_letter, scope):
            pytest.fail("it ran")

        assert not broker.exists(KEYS.alone)
