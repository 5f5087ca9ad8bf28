"""A worker of one version takes over the jobs of a worker of the other version that died, froze or stopped."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from producer.contract.names import workers_key
from tests.acceptance.origin import Origin
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer
from tests.version_before.archive import NOW, Version
from tests.version_before.asked import PREFIX, Asked, held, waiting
from tests.version_before.conftest import StartWorker
from tests.version_before.programs import ClientProgram

pytestmark = pytest.mark.thorough

ALIVE = {"queued", "running"}
#: A worker of this version keeps some of its places free for more urgent queues.
MANY = 4


@pytest.fixture(params=["before", "now"])
def first(request: pytest.FixtureRequest, before: Version) -> Version:
    """Return the version of the worker that takes the jobs first."""
    return before if request.param == "before" else NOW


@pytest.fixture
def second(first: Version, before: Version) -> Version:
    """Return the version of the worker that takes over."""
    return NOW if first is before else before


def test_a_killed_worker_s_jobs_are_never_unknown_and_the_other_version_answers_them(
    first: Version,
    second: Version,
    old_client: ClientProgram,
    new_client: ClientProgram,
    own_valkey: ValkeyServer,
    origin: Origin,
    stand_still: Path,
    start_worker: StartWorker,
) -> None:
    stand_still.touch()
    with own_valkey.connect() as broker:
        by_old, by_new = Asked(origin, range(8)), Asked(origin, range(8, 16))
        both = by_old.ids + by_new.ids
        killed = start_worker(first, NAMESHOT_CONCURRENCY="12")
        assert old_client.submit(by_old.jobs) == new_client.submit(by_new.jobs) == ["accepted"] * 8
        eventually(lambda: held(broker) >= MANY, lambda: killed.log)
        answers = [client.wait(both) for client in (old_client, new_client)]

        killed.process.kill()
        killed.process.wait()
        for client in (old_client, new_client):
            assert set(client.statuses(both)) <= ALIVE
        heir = start_worker(second, is_awaited=False)
        seen: set[str] = set()
        # Until the second worker has taken over the killed worker's messages.
        while not (heir.is_ready and held(broker) >= MANY):
            seen.update(*(client.statuses(both) for client in (old_client, new_client)))
        stand_still.unlink()

        assert [answer.result(60) for answer in answers] == [by_old.right + by_new.right] * 2, heir.log
        assert seen <= ALIVE | {"succeeded"}
        for client in (old_client, new_client):
            assert set(client.statuses(both)) == {"succeeded"}
        eventually(lambda: waiting(broker) == held(broker) == 0)
        assert len(broker.smembers(workers_key(PREFIX))) == 1


def test_the_other_version_runs_a_frozen_worker_s_jobs_and_the_thawed_worker_does_not_change_the_answers(
    first: Version,
    second: Version,
    old_client: ClientProgram,
    new_client: ClientProgram,
    own_valkey: ValkeyServer,
    origin: Origin,
    stand_still: Path,
    start_worker: StartWorker,
) -> None:
    stand_still.touch()
    with own_valkey.connect() as broker, own_valkey.connect(1) as results:
        asked = Asked(origin, range(8))
        frozen = start_worker(first)
        assert old_client.submit(asked.jobs) == ["accepted"] * 8
        assert new_client.submit(asked.jobs) == ["accepted"] * 8
        eventually(lambda: held(broker) >= MANY, lambda: frozen.log)
        frozen.process.send_signal(signal.SIGSTOP)
        heir = start_worker(second)
        stand_still.unlink()
        try:
            for client in (old_client, new_client):
                assert client.wait(asked.ids).result(60) == asked.right, heir.log
            answers = [results.get(f"celery-task-meta-{job_id}") for job_id in asked.ids]
        finally:
            frozen.process.send_signal(signal.SIGCONT)

        # The thawed worker answers further jobs, so by then it has also tried to answer the first ones.
        heir.stop()
        further = Asked(origin, range(8, 16))
        assert new_client.submit(further.jobs) == ["accepted"] * 8
        assert old_client.wait(further.ids).result(60) == further.right, frozen.log
        assert [results.get(f"celery-task-meta-{job_id}") for job_id in asked.ids] == answers
        eventually(lambda: waiting(broker) == held(broker) == 0)


def test_jobs_that_a_stopping_worker_returns_are_never_unknown_and_the_other_version_answers_them(
    first: Version,
    second: Version,
    old_client: ClientProgram,
    new_client: ClientProgram,
    own_valkey: ValkeyServer,
    origin: Origin,
    stand_still: Path,
    start_worker: StartWorker,
) -> None:
    stand_still.touch()
    with own_valkey.connect() as broker:
        asked = Asked(origin, range(16))
        leaving = start_worker(first, NAMESHOT_CONCURRENCY="8", NAMESHOT_DRAIN_TIMEOUT="0.5")
        assert new_client.submit(asked.jobs[::2]) == old_client.submit(asked.jobs[1::2]) == ["accepted"] * 8
        eventually(lambda: held(broker) >= MANY, lambda: leaving.log)

        leaving.stop()
        assert waiting(broker) == 16
        for client in (old_client, new_client):
            assert set(client.statuses(asked.ids)) <= ALIVE
        heir = start_worker(second)
        for _ in range(10):
            for client in (old_client, new_client):
                assert set(client.statuses(asked.ids)) <= ALIVE
        stand_still.unlink()

        assert new_client.wait(asked.ids).result(60) == asked.right, heir.log
        assert old_client.wait(asked.ids).result(60) == asked.right
