"""One Redis with clients and workers of this version and of the previous one."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.acceptance.origin import Origin
from tests.acceptance.worker_process import Worker
from tests.chaos import jobs
from tests.valkey_server import ValkeyServer
from tests.version_before.archive import COMMIT, NOW, Version, unpack
from tests.version_before.programs import ClientProgram, null_worker

StartWorker = Callable[..., Worker]


@pytest.fixture(scope="session")
def before(tmp_path_factory: pytest.TempPathFactory) -> Version:
    """Return the previous version; skip the test if its commit is missing."""
    found = unpack(tmp_path_factory.mktemp("version-before"))
    if found is None:
        pytest.skip(f"needs git and commit {COMMIT[:7]}, which is in a clone with its whole history")
    return found


@pytest.fixture
def origin() -> Iterator[Origin]:
    """Serve the pictures of `tests.chaos.jobs`."""
    with Origin() as origin:
        origin.pages.update(jobs.pages())
        yield origin


@pytest.fixture
def stand_still(tmp_path: Path) -> Path:
    """Return the path of a file; while it exists, no worker finishes a job."""
    return tmp_path / "stand-still"


@pytest.fixture
def old_client(before: Version, own_valkey: ValkeyServer) -> Iterator[ClientProgram]:
    """Return a program that uses the previous version's client."""
    with ClientProgram(before, own_valkey.settings("producer")) as program:
        yield program


@pytest.fixture
def new_client(own_valkey: ValkeyServer) -> Iterator[ClientProgram]:
    """Return a program that uses this version's client."""
    with ClientProgram(NOW, own_valkey.settings("producer")) as program:
        yield program


@pytest.fixture
def start_worker(own_valkey: ValkeyServer, origin: Origin, stand_still: Path, tmp_path: Path) -> Iterator[StartWorker]:
    """Return a function that starts a null worker and waits until it is ready; all workers end with the test."""
    with ExitStack() as stack:
        started: list[Worker] = []

        def start(version: Version, *, is_awaited: bool = True, **settings: str) -> Worker:
            folder = tmp_path / f"{version.name}-{len(started)}"
            folder.mkdir()
            every = {
                **own_valkey.settings("worker"),
                "NAMESHOT_FETCH_ALLOW": f"127.0.0.1/32:{origin.port}",
                # In the previous version, a decoder process that starts while Celery shuts down fails its first image.
                "NAMESHOT_DECODER": "thread",
                # A test may hold a job up for long on a busy machine; the job must not time out meanwhile.
                "NAMESHOT_JOB_TIMEOUT": "300",
                # A worker that measures its batch size runs some batches first, and would hang before it is ready.
                "NAMESHOT_MAX_BATCH": "8",
                "NULL_HANG": str(stand_still),
            }
            worker = null_worker(version, folder, {**every, **settings})
            started.append(worker)
            stack.enter_context(worker)
            if is_awaited:
                worker.wait_until_ready()
            return worker

        yield start
        stand_still.unlink(missing_ok=True)
        for worker in started:
            if worker.process.poll() is None:
                worker.process.kill()
