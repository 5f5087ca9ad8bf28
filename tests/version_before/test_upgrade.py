"""A rolling upgrade, and the way back: workers are exchanged one after another while both clients send and wait."""

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
    # The same jobs are in the hands of one killed worker after another.
    "NAMESHOT_MAX_ATTEMPTS": "10",
}
#: A worker of this version leaves some of its places to the more important queues.
MANY = 4


@dataclass
class Traffic:
    """Jobs that both clients send in turn, and what becomes of them."""

    clients: tuple[ClientProgram, ClientProgram]
    origin: Origin
    portions: list[Asked] = field(default_factory=list)

    def send(self) -> None:
        """A further portion, half of it by each client."""
        first = PORTION * len(self.portions)
        portion = Asked(self.origin, range(first, first + PORTION))
        for number, client in enumerate(self.clients):
            assert client.submit(portion.jobs[number::2]) == ["accepted"] * (PORTION // 2)
        self.portions.append(portion)
        self.look()

    def look(self) -> None:
        """Every job so far is alive or answered, whoever asks."""
        for portion in self.portions:
            for client in self.clients:
                assert set(client.statuses(portion.ids)) <= ALIVE

    def settle(self) -> None:
        """Every job so far is answered, and rightly."""
        for portion in self.portions:
            for client in self.clients:
                assert client.wait(portion.ids).result(60) == portion.right
        self.portions.clear()


@pytest.fixture
def traffic(old_client: ClientProgram, new_client: ClientProgram, origin: Origin) -> Traffic:
    """Nothing is sent yet."""
    return Traffic((old_client, new_client), origin)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("is_killed", [False, True], ids=["stopped", "killed"])
def test_workers_are_exchanged_and_exchanged_back_while_jobs_wait(
    is_killed: bool, before: Version, own_valkey: ValkeyServer, traffic: Traffic, start_worker: StartWorker
) -> None:
    """Without an overlap between the two, too: the last of one version has ended before the first of the other."""

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
            # Side by side.
            workers.append(start_worker(version, **SETTINGS))
            traffic.send()
            end(workers[-2])
            traffic.send()
        for version in (NOW, before, NOW):
            # One after the other.
            eventually(lambda: held(broker) > 0)
            end(workers[-1])
            traffic.send()
            workers.append(start_worker(version, is_awaited=False, **SETTINGS))
            while not workers[-1].is_ready:
                traffic.look()
            traffic.look()
        traffic.settle()
        eventually(lambda: waiting(broker) == held(broker) == 0)


def test_no_waiting_job_is_unknown_after_a_kill_a_way_back_and_a_second_upgrade(
    before: Version,
    new_client: ClientProgram,
    own_valkey: ValkeyServer,
    origin: Origin,
    stand_still: Path,
    start_worker: StartWorker,
) -> None:
    """The worker of the version before returns what was counted as taken, and no worker of this version sees it."""
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
