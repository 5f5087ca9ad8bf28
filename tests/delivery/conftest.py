"""Real workers with a null model; as it has no weights to load, they start in a second."""

import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from celery import Celery
from celery.result import AsyncResult

from producer import Client
from tests.acceptance.conftest import picture
from tests.acceptance.origin import Origin
from tests.acceptance.worker_process import Worker
from tests.chaos.scaled_times import scaled_times
from tests.cli.command import Home
from tests.delivery.null_workers import SupervisedWorker
from tests.delivery.probing import Probe
from tests.valkey_server import ValkeyServer
from worker.delivery.times import Times

StartWorker = Callable[..., Worker]
SendMany = Callable[..., AsyncResult]
Supervise = Callable[..., SupervisedWorker]
NULL_APP = "tests.chaos.null_worker"


def command_of(app: str) -> tuple[str, ...]:
    """Return the command that starts a worker of that Celery app."""
    return (sys.executable, "-m", "celery", "-A", app, "worker")


COMMAND = command_of(NULL_APP)
#: The setting with which a worker's delivery waits as long as in production.
REAL_LENGTHS = {"NULL_TIME_SCALE": "1"}


@pytest.fixture
def origin() -> Iterator[Origin]:
    """A server of pictures on loopback, which answers requests for ``/held/`` only once `Origin.hold` is set."""
    with Origin() as origin:
        origin.pages["/owl.png"] = ("image/png", picture("PNG", (320, 240), "saddlebrown"))
        origin.pages["/car.jpg"] = ("image/jpeg", picture("JPEG", (200, 300), "crimson"))
        yield origin


@pytest.fixture
def probe() -> Probe:
    """A probe with a free port, for a worker that a test starts with this port as ``NAMESHOT_METRICS_PORT``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return Probe(str(free.getsockname()[1]))


@pytest.fixture
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """A second server, the result backend."""
    with ValkeyServer(tmp_path_factory.mktemp("answers")) as server:
        yield server


@pytest.fixture(autouse=True)
def times(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> Times:
    """The delivery's times in all workers here, except in those that start with `REAL_LENGTHS`."""
    scale = pytestconfig.getoption("--time-scale")
    monkeypatch.setenv("NULL_TIME_SCALE", str(scale))
    return scaled_times(scale)


@pytest.fixture
def outage_s(pytestconfig: pytest.Config, times: Times) -> float:
    """How long Redis is down, in seconds: by default until every worker's lease has expired."""
    return float(pytestconfig.getoption("--outage-s") or times.lease_s + times.round_s)


@pytest.fixture
def start_worker(own_valkey: ValkeyServer, origin: Origin, tmp_path: Path) -> Iterator[StartWorker]:
    """Start workers on this test's own Valkey, and wait until they are ready unless `is_ready` is false."""
    with ExitStack() as stack:

        def start(
            name: str,
            app: str = NULL_APP,
            *,
            prefix: tuple[str, ...] = (),
            options: tuple[str, ...] = (),
            is_ready: bool = True,
            **settings: str,
        ) -> Worker:
            folder = tmp_path / name
            folder.mkdir()
            worker = Worker(
                folder,
                {
                    **own_valkey.settings("worker"),
                    "NAMESHOT_FETCH_ALLOW": f"127.0.0.1/32:{origin.port}",
                    "NAMESHOT_METRICS_PORT": "0",
                    **settings,
                },
                (*prefix, *command_of(app), "-n", f"{name}@%h", *options),
            )
            stack.enter_context(worker)
            if is_ready:
                worker.wait_until_ready()
            return worker

        yield start


@pytest.fixture
def client(own_valkey: ValkeyServer, request: pytest.FixtureRequest) -> Iterator[Client]:
    """A client of the same Valkey; in a test that uses `answers`, that second server is the result backend."""
    results: ValkeyServer = request.getfixturevalue("answers") if "answers" in request.fixturenames else own_valkey
    with Client(own_valkey.broker_url, results.result_backend) as client:
        yield client


@pytest.fixture
def supervise(own_valkey: ValkeyServer, origin: Origin, tmp_path: Path) -> Supervise:
    """Make a context manager in which null workers run, one after another."""

    def workers(name: str = "workers", *, poison_label: str | None = None, **settings: str) -> SupervisedWorker:
        folder = tmp_path / name
        return SupervisedWorker(folder, own_valkey, fetch_port=origin.port, poison_label=poison_label, **settings)

    return workers


@pytest.fixture
def command(own_valkey: ValkeyServer, tmp_path: Path) -> Home:
    """The `nameshot` command as an operator of the same Redis runs it."""
    (tmp_path / "home").mkdir()
    return Home.make(tmp_path / "home", **own_valkey.settings("worker"))


@pytest.fixture
def send_many(own_valkey: ValkeyServer) -> Iterator[SendMany]:
    """Send one bulk message."""
    with Celery(broker=own_valkey.broker_url, backend=own_valkey.result_backend, set_as_current=False) as plain:

        def send(urls: list[str], queue: str = "bulk") -> AsyncResult:
            arguments = {"images": urls, "candidate_labels": ["fox", "bear"]}
            return plain.send_task("nameshot.classify_many", kwargs=arguments, queue=f"nameshot.{queue}")

        yield send
