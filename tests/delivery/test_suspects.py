"""Which jobs are suspects, which are poisoned, and when a suspicion ends."""

from typing import Any

import pytest
import redis

from producer.errors import JobFailed
from tests.delivery.hands import KEYS
from tests.valkey_server import ValkeyServer
from worker.concurrency.cancel_scope import CancelScope, Suspect
from worker.delivery.suspects import Suspects
from worker.delivery.taken import Deaths

MAX_ATTEMPTS = 3


def suspects(broker: redis.Redis) -> Suspects:
    return Suspects(broker, KEYS, max_attempts=MAX_ATTEMPTS)


def keep_no_letter(_deaths: int, _image: int | None) -> None:
    """Keep no dead letter: these tests read none."""


def test_a_job_is_a_suspect_after_two_deaths_but_poisoned_only_if_it_ran_alone_in_one(valkey: ValkeyServer) -> None:
    with valkey.connect() as broker:
        watch = suspects(broker)

        assert watch.examine("job", "high", Deaths(1), keep_no_letter) is None
        for deaths in (Deaths(2), Deaths(2, 1), Deaths(20)):
            assert watch.examine("job", "high", deaths, keep_no_letter) == Suspect("job", "high", deaths.count)


def test_a_poisoned_job_is_still_poisoned_while_its_failure_is_not_stored(valkey: ValkeyServer) -> None:
    with valkey.connect() as broker:
        broker.hset(KEYS.suspects, mapping={"job": MAX_ATTEMPTS, "alone job": 1})
        watch = suspects(broker)

        with pytest.raises(JobFailed, match="poisoned"):
            watch.examine("job", "default", Deaths(MAX_ATTEMPTS, 1), keep_no_letter)
        assert broker.hgetall(KEYS.suspects) == {b"job": b"3", b"alone job": b"1"}

        watch.acquit("job")
        assert not broker.exists(KEYS.suspects)


def test_an_image_is_poisoned_by_its_own_deaths_and_not_by_those_that_another_image_explains(
    valkey: ValkeyServer,
) -> None:
    letters: list[tuple[int, int | None]] = []
    with valkey.connect() as broker:
        broker.hset(KEYS.suspects, mapping={"job": 4, "alone job 1": 2, "alone job 2": 1})
        watch = suspects(broker)

        def note(*letter: Any) -> None:
            letters.append(letter)

        scopes = watch.images(CancelScope(0), Suspect("job", "bulk", 4), Deaths(4), note, 4)
        found = [scope if isinstance(scope, JobFailed) else scope.suspect for scope in scopes]

        assert found[0] == Suspect("job 0", "bulk", 4)
        assert isinstance(found[1], JobFailed)
        assert found[1].code == "poisoned"
        assert found[2:] == [Suspect("job 2", "bulk", 4), Suspect("job 3", "bulk", 4)]
        assert letters == [(3, 1)]

        watch.acquit("job")
        assert not broker.exists(KEYS.suspects)
