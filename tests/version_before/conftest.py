"""One Redis, and on it clients and workers of this version and of the one before."""

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
    """The version before; without its commit people are told what was not looked at."""
    found = unpack(tmp_path_factory.mktemp("version-before"))
    if found is None:
        pytest.skip(f"needs git and commit {COMMIT[:7]}, which is in a clone with its whole history")
    return found


@pytest.fixture
def origin() -> Iterator[Origin]:
    """The pictures of `tests.chaos.jobs`."""
    with Origin() as origin:
        origin.pages.update(jobs.pages())
        yield origin


@pytest.fixture
def stand_still(tmp_path: Path) -> Path:
    """A file: while it exists, no worker finishes what it has in hand."""
    return tmp_path / "stand-still"


@pytest.fixture
def old_client(before: Version, own_valkey: ValkeyServer) -> Iterator[ClientProgram]:
    """A program that uses the client of the version before."""
    with ClientProgram(before, own_valkey.settings("producer")) as program:
        yield program


@pytest.fixture
def new_client(own_valkey: ValkeyServer) -> Iterator[ClientProgram]:
    """A program that uses this version's client."""
    with ClientProgram(NOW, own_valkey.settings("producer")) as program:
        yield program


@pytest.fixture
def start_worker(own_valkey: ValkeyServer, origin: Origin, stand_still: Path, tmp_path: Path) -> Iterator[StartWorker]:
    """Start null workers, ready unless told otherwise; what is left of them ends with the test."""
    with ExitStack() as stack:
        started: list[Worker] = []

        def start(version: Version, *, is_awaited: bool = True, **settings: str) -> Worker:
            folder = tmp_path / f"{version.name}-{len(started)}"
            folder.mkdir()
            every = {
                **own_valkey.settings("worker"),
                "NAMESHOT_FETCH_ALLOW": f"127.0.0.1/32:{origin.port}",
                # A decoder process of the version before fails its first image where it starts while Celery shuts down.
                "NAMESHOT_DECODER": "thread",
                # While a job stands still, the time that a busy machine takes is no fault of it.
                "NAMESHOT_JOB_TIMEOUT": "300",
                # Where it has to find out how large a batch may be, it tries some, and would hang before it is ready.
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
