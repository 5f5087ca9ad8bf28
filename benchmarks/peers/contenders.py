"""The contenders: how each is started, and how its clients submit jobs."""

from __future__ import annotations

import os
import socket
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from celery import Celery

from benchmarks.peers.environment import environment
from benchmarks.peers.failure import PeerFailed
from benchmarks.peers.reference import Answer
from benchmarks.system import worker_settings
from producer import Client
from producer.embedded.valkey import RunningValkey
from producer.embedded.worker import WorkerProcess
from producer.processes.child import ChildProcess

ROOT = Path(__file__).parents[2]
CORES = os.cpu_count() or 1
#: The slowest contender takes less time for 32 jobs with 100 labels.
ANSWER_TIMEOUT_S = 300.0
STOP_GRACE_S = 20.0

Ask = Callable[[str, list[str]], Answer]


@dataclass(frozen=True)
class Site:
    """What a contender gets to run with.

    Attributes:
        valkey: the contender's own Valkey, so that no jobs of a failed contender wait for the next one.
    """

    model: Path
    valkey: RunningValkey
    picture_port: int
    clients: int


@dataclass(frozen=True)
class Running:
    """A contender whose process has started, although it may not answer yet. `ask` is thread-safe.

    Attributes:
        client: nameshot's own client, which can submit many jobs in one call; None for a peer.
    """

    process: ChildProcess
    ask: Ask
    client: Client | None = None

    def check(self) -> None:
        """Raise `PeerFailed` if the process has ended."""
        if not self.process.is_running():
            raise PeerFailed(f"it {self.process.describe_exit()}: {self.process.last_log_line()[:200]}")


@dataclass(frozen=True)
class Contender(ABC):
    """A program that is measured.

    Attributes:
        requirements: the name of a file in ``requirements``, without ``.txt``; None uses this process's environment.
    """

    name: str
    what: str
    requirements: str | None = None

    def prepared(self, venvs: Path) -> Path:
        """Return the Python that runs it; the time to install packages is not part of its start."""
        return environment(self.requirements, venvs) if self.requirements else Path(sys.executable)

    @abstractmethod
    def running(self, site: Site, python: Path, folder: Path) -> Any:
        """Return a context manager that yields a `Running` as soon as the process has started."""


class Nameshot(Contender):
    """Nameshot's own worker and client."""

    @contextmanager
    def running(self, site: Site, python: Path, folder: Path) -> Iterator[Running]:  # noqa: ARG002  # it runs in this Python
        """Run a worker and a `Client`."""
        worker = WorkerProcess(worker_settings(site.valkey, site.model, site.picture_port), folder)
        try:
            with Client(site.valkey.broker_url, site.valkey.result_backend) as client:

                def ask(url: str, labels: list[str]) -> Answer:
                    result = client.classify(url, labels, timeout=ANSWER_TIMEOUT_S)
                    return {score.label: score.score for score in result.ranking}

                yield Running(worker.process, ask, client)
        finally:
            worker.stop()


@dataclass(frozen=True)
class Peer(Contender):
    """A program of ``programs``.

    Attributes:
        command: the arguments after Python's ``-m``, with ``{port}`` for the port.
        settings: further environment variables.
    """

    command: Sequence[str] = ()
    settings: Mapping[str, str] = field(default_factory=dict)

    @abstractmethod
    def client(self, site: Site, port: int) -> Ask:
        """Return a function that submits one job to the peer and waits for the answer."""

    @contextmanager
    def running(self, site: Site, python: Path, folder: Path) -> Iterator[Running]:
        """Run the program; it may write files in this folder only."""
        port = free_port()
        process = ChildProcess(
            [str(python), "-m", *(part.format(port=port) for part in self.command)],
            folder=folder,
            log=folder / "peer.log",
            environment={
                **{name: value for name, value in os.environ.items() if not name.startswith("NAMESHOT_")},
                # A peer's scripts are beside its Python; `benchmarks.peers.model` is in our repository.
                "PATH": os.pathsep.join([str(python.parent), os.environ.get("PATH", os.defpath)]),
                "PYTHONPATH": str(ROOT),
                "PYTHONUNBUFFERED": "1",
                # Ray's sessions and BentoML's store are deleted with the folder.
                "TMPDIR": str(folder),
                "HOME": str(folder),
                "PEER_MODEL": str(site.model),
                "PEER_PORT": str(port),
                "PEER_BROKER": site.valkey.url(0),
                "PEER_BACKEND": site.valkey.url(1),
                **self.settings,
            },
        )
        try:
            yield Running(process, self.client(site, port))
        finally:
            process.stop(STOP_GRACE_S)


class CeleryPeer(Peer):
    """A peer that gets jobs by ``send_task(...).get()``."""

    def client(self, site: Site, port: int) -> Ask:  # noqa: ARG002  # a Celery worker has no port
        """Return a plain Celery client with a connection for each thread."""
        app = Celery(broker=site.valkey.url(0), backend=site.valkey.url(1), set_as_current=False)
        app.conf.broker_pool_limit = site.clients

        def ask(url: str, labels: list[str]) -> Answer:
            return _answer(app.send_task("classify", args=[url, labels]).get(timeout=ANSWER_TIMEOUT_S))

        return ask


@dataclass(frozen=True)
class HttpPeer(Peer):
    """A peer that gets jobs by POST, over one kept connection per thread.

    Attributes:
        path: the path of its endpoint.
        listed: the name of the list of jobs in the body, to which it responds with a list; None if the body is one job.
    """

    path: str = "/"
    listed: str | None = None

    def client(self, site: Site, port: int) -> Ask:  # noqa: ARG002  # the inherited parameter
        """Return a client that uses requests."""
        of_thread = threading.local()

        def ask(url: str, labels: list[str]) -> Answer:
            if not hasattr(of_thread, "session"):
                of_thread.session = requests.Session()
            job = {"url": url, "labels": labels}
            response = of_thread.session.post(
                f"http://127.0.0.1:{port}{self.path}",
                json={self.listed: [job]} if self.listed else job,
                timeout=ANSWER_TIMEOUT_S,
            )
            response.raise_for_status()
            return _answer(response.json()[0] if self.listed else response.json())

        return ask


def _answer(ranking: list[dict[str, Any]]) -> Answer:
    return {one["label"]: one["score"] for one in ranking}


def free_port() -> int:
    """Return a port on which no program listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_PROGRAMS = "benchmarks.peers.programs"


def _celery(program: str, pool: str, concurrency: int) -> tuple[str, ...]:
    options = ("--pool", pool, "--concurrency", str(concurrency), "--loglevel", "warning")
    return ("celery", "--app", f"{_PROGRAMS}.{program}", "worker", *options)


NAMESHOT = Nameshot("nameshot", "this worker, this client")
PEERS: Sequence[Contender] = (
    CeleryPeer(
        "pipeline-prefork",
        f"one pipeline call per Celery task; {CORES} processes with one torch thread each",
        command=_celery("pipeline_task", "prefork", CORES),
        settings={"PEER_TORCH_THREADS": "1"},
    ),
    CeleryPeer(
        "pipeline-solo",
        f"one pipeline call per Celery task; one process with {CORES} torch threads",
        command=_celery("pipeline_task", "solo", 1),
        settings={"PEER_TORCH_THREADS": str(CORES)},
    ),
    CeleryPeer(
        "celery-batches",
        "Celery, batches collected by celery-batches",
        "celery-batches",
        command=_celery("batches_task", "prefork", 1),
    ),
    HttpPeer(
        "litserve",
        "LitServe, dynamic batches",
        "litserve",
        command=(f"{_PROGRAMS}.litserve_server",),
        path="/predict",
    ),
    HttpPeer(
        "ray-serve",
        "Ray Serve, @serve.batch",
        "ray-serve",
        command=(f"{_PROGRAMS}.ray_serve_app",),
        settings={"RAY_USAGE_STATS_ENABLED": "0"},
    ),
    HttpPeer(
        "bentoml",
        "BentoML, adaptive batches",
        "bentoml",
        command=(
            "bentoml",
            "serve",
            f"{_PROGRAMS}.bentoml_service:ZeroShot",
            "--host",
            "127.0.0.1",
            "--port",
            "{port}",
        ),
        settings={"BENTOML_DO_NOT_TRACK": "True"},
        path="/classify",
        listed="jobs",
    ),
)
