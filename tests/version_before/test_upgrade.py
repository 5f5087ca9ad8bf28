"""A rolling upgrade and a rollback: workers are replaced one after another while both clients submit and wait."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.acceptance.origin import Origin
from tests.acceptance.worker_process import Worker
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer
from tests.version_before.archive import NOW, Version
from tests.version_before.asked import Asked, held, waiting
from tests.version_before.conftest import StartWorker
from tests.version_before.programs import ClientProgram

pytestmark = pytest.mark.thorough

ALIVE = {"queued", "running", "succeeded"}
#: More than the workers take at once, so that some always wait.
PORTION = 40
SETTINGS = {
    "NAMESHOT_CONCURRENCY": "8",
    "NAMESHOT_MAX_BATCH": "4",
    "NULL_FORWARD_MS": "100",
    # The same jobs are held by one killed worker after another.
    "NAMESHOT_MAX_ATTEMPTS": "10",
}
#: A worker of this version keeps some of its places free for more urgent queues.
MANY = 4


@dataclass
class Traffic:
    """Jobs that both clients submit in turn."""

    clients: tuple[ClientProgram, ClientProgram]
    origin: Origin
    portions: list[Asked] = field(default_factory=list)

    def send(self) -> None:
        """Submit one more portion, half of it with each client."""
        first = PORTION * len(self.portions)
        portion = Asked(self.origin, range(first, first + PORTION))
        for number, client in enumerate(self.clients):
            assert client.submit(portion.jobs[number::2]) == ["accepted"] * (PORTION // 2)
        self.portions.append(portion)
        self.look()

    def look(self) -> None:
        """Assert that both clients see every job as waiting, running or answered."""
        for portion in self.portions:
            for client in self.clients:
                assert set(client.statuses(portion.ids)) <= ALIVE

    def settle(self) -> None:
        """Assert that every job gets the right answer."""
        for portion in self.portions:
            for client in self.clients:
                assert client.wait(portion.ids).result(60) == portion.right
        self.portions.clear()


@pytest.fixture
def traffic(old_client: ClientProgram, new_client: ClientProgram, origin: Origin) -> Traffic:
    """Return traffic without any jobs yet."""
    return Traffic((old_client, new_client), origin)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("is_killed", [False, True], ids=["stopped", "killed"])
def test_jobs_are_never_unknown_while_workers_are_upgraded_and_rolled_back(
    is_killed: bool, before: Version, own_valkey: ValkeyServer, traffic: Traffic, start_worker: StartWorker
) -> None:
    """First the two versions overlap; then the last worker of one version ends before the first of the other starts."""

    def end(worker: Worker) -> None:
        if is_killed:
            worker.process.kill()
            worker.process.wait()
        else:
            worker.stop()

    with own_valkey.connect() as broker:
        workers = [start_worker(before, **SETTINGS)]
        traffic.send()
        for version in (NOW, before):
            # With an overlap.
            workers.append(start_worker(version, **SETTINGS))
            traffic.send()
            end(workers[-2])
            traffic.send()
        for version in (NOW, before, NOW):
            # Without an overlap.
            eventually(lambda: held(broker) > 0)
            end(workers[-1])
            traffic.send()
            workers.append(start_worker(version, is_awaited=False, **SETTINGS))
            while not workers[-1].is_ready:
                traffic.look()
            traffic.look()
        traffic.settle()
        eventually(lambda: waiting(broker) == held(broker) == 0)


def test_no_waiting_job_is_unknown_after_a_kill_a_rollback_and_a_second_upgrade(
    before: Version,
    new_client: ClientProgram,
    own_valkey: ValkeyServer,
    origin: Origin,
    stand_still: Path,
    start_worker: StartWorker,
) -> None:
    """The previous version's worker returns messages that a killed worker of this version had counted as taken."""
    stand_still.touch()
    settings = {"NAMESHOT_CONCURRENCY": "8", "NAMESHOT_DRAIN_TIMEOUT": "0.1"}
    asked = Asked(origin, range(PORTION))
    with own_valkey.connect() as broker:
        killed = start_worker(NOW, **settings)
        assert new_client.submit(asked.jobs) == ["accepted"] * PORTION
        eventually(lambda: held(broker) >= MANY, lambda: killed.log)
        killed.process.kill()
        killed.process.wait()
        stopped = start_worker(before, **settings)
        eventually(lambda: stopped.is_ready and held(broker) >= MANY, lambda: stopped.log)
        stopped.stop()

        last = start_worker(NOW, **settings)
        eventually(lambda: held(broker) >= MANY, lambda: last.log)
        for _ in range(50):
            assert set(new_client.statuses(asked.ids)) <= ALIVE
        stand_still.unlink()
        assert new_client.wait(asked.ids).result(60) == asked.right, last.log
