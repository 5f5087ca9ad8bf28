"""One contender's rows: started, compared with the pipeline, asked in rounds."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from benchmarks.peers.contenders import Contender, Running, Site
from benchmarks.peers.failure import PeerFailed
from benchmarks.peers.load import Clients, percentile
from benchmarks.peers.memory import resident_bytes
from benchmarks.peers.reference import COMPARED, Answer, compare
from benchmarks.system import PICTURES
from producer.embedded import embedded_valkey

#: Ray starts a cluster and loads torch in a second process; on a busy machine that takes a minute.
START_TIMEOUT_S = 300.0
_RETRY_INTERVAL_S = 0.05
#: What a server says before its model is there.
_NOT_YET = (404, 502, 503)

Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What every contender is measured with.

    Attributes:
        expected: by label set, the pipeline's answers for the first pictures.
    """

    model: Path
    picture_port: int
    venvs: Path
    label_sets: Sequence[list[str]]
    expected: Sequence[Sequence[Answer]]
    jobs: int
    rounds: int
    clients: int

    def url(self, number: int) -> str:
        """A picture's."""
        return f"http://127.0.0.1:{self.picture_port}/{number % PICTURES}.jpg"


def measured(contender: Contender, plan: Plan, announce: Callable[[str], None]) -> list[Row]:
    """A row for each label set; what fails is an ``error`` instead of figures, and the next label set is not tried."""
    rows: list[Row] = []
    try:
        for row in _rows(contender, plan, announce):
            rows.append({"name": contender.name, "what": contender.what, **row})  # noqa: PERF401  # kept when one fails
    except Exception as error:  # somebody else's program: whatever happens is its row
        known = isinstance(error, PeerFailed)
        said = str(error) if known else f"{type(error).__name__}: {str(error)[:200]}"
        rows += [
            {"name": contender.name, "what": contender.what, "labels": len(labels), "error": said}
            for labels in plan.label_sets[len(rows) :]
        ]
    return rows


def _rows(contender: Contender, plan: Plan, announce: Callable[[str], None]) -> Iterator[Row]:
    announce(f"{contender.name}: environment")
    python = contender.prepared(plan.venvs)
    announce(f"{contender.name}: start")
    with tempfile.TemporaryDirectory() as folder, embedded_valkey() as valkey, Clients(plan.clients) as clients:
        site = Site(plan.model, valkey, plan.picture_port, plan.clients)
        started = time.perf_counter()
        with contender.running(site, python, Path(folder)) as running:
            _first_answer(running, clients, plan.url(0), plan.label_sets[0])
            start_s = time.perf_counter() - started
            for labels, expected in zip(plan.label_sets, plan.expected, strict=True):
                announce(f"{contender.name}: {len(labels)} labels")
                _warm_up(running, clients, plan, labels, expected)
                rounds = [_round(running, clients, plan, labels) for _ in range(plan.rounds)]
                yield {
                    "labels": len(labels),
                    **summary(rounds),
                    "memory_mb": round(resident_bytes(running.process.pid) / 1e6),
                    "start_s": round(start_s, 1),
                    "rounds_jobs_per_s": [round(len(latencies) / elapsed_s, 3) for elapsed_s, latencies in rounds],
                }


def summary(rounds: Sequence[tuple[float, Sequence[float]]]) -> Row:
    """The median round's throughput, and the latencies of all of them.

    Args:
        rounds: for each its seconds and its jobs' seconds.
    """
    latencies_s = [latency_s for _, latencies in rounds for latency_s in latencies]
    return {
        "jobs_per_s": round(statistics.median(len(latencies) / elapsed_s for elapsed_s, latencies in rounds), 3),
        "p50_ms": round(percentile(latencies_s, 50) * 1000),
        "p95_ms": round(percentile(latencies_s, 95) * 1000),
    }


def _first_answer(running: Running, clients: Clients, url: str, labels: list[str]) -> None:
    """Ask until a server that is still starting answers; queues need no such patience."""
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


def _warm_up(running: Running, clients: Clients, plan: Plan, labels: list[str], expected: Sequence[Answer]) -> None:
    """As many jobs at once as in a round, each answer compared: caches fill, and batches are mixed."""

    def ask(number: int) -> None:
        compare(running.ask(plan.url(number % COMPARED), labels), expected[number % COMPARED])

    clients.run(ask, plan.clients, running.check)


def _round(running: Running, clients: Clients, plan: Plan, labels: list[str]) -> tuple[float, list[float]]:
    def ask(number: int) -> None:
        running.ask(plan.url(number), labels)

    return clients.run(ask, plan.jobs, running.check)
