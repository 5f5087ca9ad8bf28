"""A thousand jobs of both versions' clients run in both versions' workers, some of which are killed."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from producer.contract.names import workers_key
from tests.acceptance.origin import Origin
from tests.acceptance.worker_process import Worker
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer
from tests.version_before.archive import NOW, Version
from tests.version_before.asked import PREFIX, Asked, held, waiting
from tests.version_before.conftest import StartWorker
from tests.version_before.programs import ClientProgram

pytestmark = pytest.mark.thorough

JOBS = 1_000
#: The clients take turns to submit so many jobs, and after each portion a worker is killed.
PORTION = 125
#: How many jobs at a time are checked while they run.
SAMPLE = 25


class Watch:
    """Records the states in which both clients see accepted jobs, again and again; none may be ``unknown``."""

    def __init__(self, *clients: ClientProgram) -> None:
        self.accepted: list[str] = []
        self.seen: dict[str, set[str]] = {client.version.name: set() for client in clients}
        self._clients = clients
        self._source = random.Random(1)
        self._end = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch in a thread while the block runs."""
        thread = threading.Thread(target=self._serve)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()

    def _serve(self) -> None:
        while not self._end.wait(0.05):
            latest = self.accepted[-2 * PORTION :]
            sample = self._source.sample(latest, min(SAMPLE, len(latest)))
            for client in self._clients:
                self.seen[client.version.name].update(client.statuses(sample))


@pytest.mark.timeout(300)
def test_a_thousand_jobs_of_both_clients_survive_kills_of_both_versions_workers(
    before: Version,
    old_client: ClientProgram,
    new_client: ClientProgram,
    own_valkey: ValkeyServer,
    origin: Origin,
    start_worker: StartWorker,
) -> None:
    settings = {
        "NULL_FORWARD_MS": "200",
        "NAMESHOT_MAX_BATCH": "8",
        "NAMESHOT_CONCURRENCY": "16",
        # Within some seconds, the same job may be held by three workers that are killed.
        "NAMESHOT_MAX_ATTEMPTS": "10",
    }
    versions = (before, NOW)
    clients = (old_client, new_client)
    source = random.Random(7)
    watch = Watch(*clients)
    portions = [Asked(origin, range(first, first + PORTION)) for first in range(0, JOBS, PORTION)]
    ids = [job_id for portion in portions for job_id in portion.ids]
    right = [ranking for portion in portions for ranking in portion.right]
    with own_valkey.connect() as broker, watch.watching():
        workers: list[Worker] = [start_worker(version, **settings) for version in versions]
        assert {name.rpartition(b"/")[2][:1] == b"n" for name in broker.smembers(workers_key(PREFIX))} == {True, False}
        answers = []
        in_hand = 0
        for number, portion in enumerate(portions):
            first, second = clients[number % 2], clients[(number + 1) % 2]
            for worker in workers:
                worker.wait_until_ready()
            assert first.submit(portion.jobs) == ["accepted"] * PORTION
            watch.accepted += portion.ids
            answers.append((first.wait(portion.ids), second.wait(portion.ids)))
            which = number // 2 % 2  # so that workers of each version are killed while they hold jobs of both clients
            workers[which].process.kill()
            workers[which].process.wait()
            in_hand += held(broker)
            workers[which] = start_worker(versions[which], is_awaited=False, **settings)
            # A retry goes through the other version's client while some jobs wait, some run and some are answered.
            again = source.sample(portion.jobs, PORTION // 2)
            assert second.submit(again) == ["accepted"] * len(again)
            assert set(second.submit(portion.with_other_labels()[:3])) == {"JobConflict"}
        assert in_hand > 0

        for portion, both in zip(portions, answers, strict=True):
            assert [answer.result(60) for answer in both] == [portion.right] * 2
        eventually(lambda: waiting(broker) == held(broker) == 0)
    for client in clients:
        assert client.wait(ids).result(60) == right
        assert "unknown" not in watch.seen[client.version.name]
    assert all(worker.process.poll() is None for worker in workers)
