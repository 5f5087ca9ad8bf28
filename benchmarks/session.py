"""Runs one contender: starts it, compares its answers, submits jobs, and reads its CPU time and memory."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis
import requests

from benchmarks.load import Clients, poisson_times_s
from benchmarks.memory import family, resident_bytes
from benchmarks.peers.contenders import Contender, Running, Site
from benchmarks.peers.failure import PeerFailed
from benchmarks.peers.reference import COMPARED, Answer, compare
from benchmarks.scaling.costs import process_cpu_s
from benchmarks.system import PICTURES, embedded_valkey
from producer.embedded.valkey import RunningValkey

#: Ray starts a cluster and loads torch in a second process, which takes a minute on a busy machine.
START_TIMEOUT_S = 300.0
_RETRY_INTERVAL_S = 0.05
#: A server responds with one of these statuses before its model is loaded.
_NOT_YET = (404, 502, 503)
#: The number of clients in a closed loop.
CLIENTS = 32
#: The number of clients in an open loop: more than the jobs that wait at any load below a contender's limit.
CROWD = 128


@dataclass(frozen=True)
class Place:
    """Where contenders are measured.

    Attributes:
        venvs: the folder of the peers' environments.
    """

    model: Path
    picture_port: int
    venvs: Path

    def url(self, number: int) -> str:
        """Return a picture's URL."""
        return f"http://127.0.0.1:{self.picture_port}/{number % PICTURES}.jpg"


@dataclass(frozen=True)
class Session:
    """A contender that is running and answers jobs.

    Attributes:
        start_s: the seconds from the start of its process to its first answer.
    """

    running: Running
    place: Place
    valkey: RunningValkey
    start_s: float
    _clients: Clients
    _crowd: Clients

    def verify(self, labels: list[str], expected: Sequence[Answer], jobs: int) -> None:
        """Run this many jobs at once and compare each answer; this also fills caches and mixes batches."""

        def ask(number: int) -> None:
            compare(self.running.ask(self.place.url(number % COMPARED), labels), expected[number % COMPARED])

        self._clients.run(ask, jobs, self.running.check)

    def closed_loop_per_s(self, labels: list[str], jobs: int) -> float:
        """Return the rate of this many jobs from `CLIENTS` clients, each of which waits for its answer."""
        return jobs / self._clients.run(lambda number: self._ask(number, labels), jobs, self.running.check)[0]

    def open_loop(self, labels: list[str], rate_per_s: float, duration_s: float, seed: int) -> list[float]:
        """Return each job's seconds since its scheduled arrival."""
        times_s = poisson_times_s(rate_per_s, duration_s, seed)
        return self._crowd.run_at(lambda number: self._ask(number, labels), times_s, self.running.check)[1]

    def cpu_s(self) -> float:
        """Return the CPU seconds so far of all its processes and of its Valkey, which some contenders do not use."""
        return sum(_cpu_s(pid) for pid in family(self.running.process.pid)) + valkey_cpu_s(self.valkey)

    def memory_mb(self) -> int:
        """Return the memory of all its processes without Valkey, with shared pages counted once."""
        return round(resident_bytes(self.running.process.pid) / 1e6)

    def _ask(self, number: int, labels: list[str]) -> None:
        self.running.ask(self.place.url(number), labels)


@contextmanager
def session(
    contender: Contender, place: Place, labels: list[str], announce: Callable[[str], None]
) -> Iterator[Session]:
    """Start a contender with its own Valkey, yield its session, and end both.

    Raises:
        PeerFailed: the contender cannot be installed, or has ended before its first answer.
    """
    announce(f"{contender.name}: environment")
    python = contender.prepared(place.venvs)
    announce(f"{contender.name}: start")
    with (
        tempfile.TemporaryDirectory() as folder,
        embedded_valkey() as valkey,
        Clients(CLIENTS) as clients,
        Clients(CROWD) as crowd,
    ):
        site = Site(place.model, valkey, place.picture_port, CROWD)
        started = time.perf_counter()
        with contender.running(site, python, Path(folder)) as running:
            _first_answer(running, clients, place.url(0), labels)
            yield Session(running, place, valkey, time.perf_counter() - started, clients, crowd)


def valkey_cpu_s(valkey: RunningValkey) -> float:
    """Return the CPU seconds that a Valkey has used."""
    with redis.Redis.from_url(valkey.url(0)) as observer:
        used = observer.info("cpu")
    return float(used["used_cpu_user"] + used["used_cpu_sys"])


def why(error: Exception) -> str:
    """Return what a row shows instead of figures."""
    return str(error) if isinstance(error, PeerFailed) else f"{type(error).__name__}: {str(error)[:200]}"


def _cpu_s(pid: int) -> float:
    try:
        return process_cpu_s(pid)
    except OSError:  # the process has just ended
        return 0.0


def _first_answer(running: Running, clients: Clients, url: str, labels: list[str]) -> None:
    """Repeat a job until a starting server answers; a queue holds the job until its worker is ready."""
    deadline = time.monotonic() + START_TIMEOUT_S

    def ask(_number: int) -> None:
        while True:
            try:
                running.ask(url, labels)
                return
            except requests.RequestException as error:
                starting = isinstance(error, requests.ConnectionError) or (
                    error.response is not None and error.response.status_code in _NOT_YET
                )
                running.check()
                if not starting or time.monotonic() > deadline:
                    raise
            time.sleep(_RETRY_INTERVAL_S)

    clients.run(ask, 1, running.check)
