"""``make soak``: sends many jobs through one null worker and measures its memory, descriptors and connections.

Before each sample it cuts the worker's connections to Redis, so that the worker connects again.

Prints a sample after every twentieth of the jobs; exits with 1 if the samples of the last quarter are noticeably
larger than those of the second.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import redis
from rich.console import Console
from rich.table import Table

from producer import Client
from producer.embedded.valkey import RunningValkey
from tests.acceptance.origin import Origin
from tests.chaos import jobs
from tests.chaos.processes import WorkerPlace
from tests.chaos.proxy import Switchboard

SAMPLES = 20
#: How many jobs are in the queue at a time: enough that the worker never waits for one.
WINDOW = 500
TIMEOUT_S = 300.0
#: How often the connections are cut before each sample: a leak at one reconnection is small, at a hundred it exceeds
#: every tolerance.
RECONNECTIONS = 5
#: Smaller increases do not count, because the sizes of allocators and caches vary.
TOLERANCE = {"rss_mb": 8.0, "descriptors": 8.0, "redis_connections": 8.0, "threads": 8.0}


@dataclass(frozen=True, slots=True)
class Sample:
    """What the worker occupies after ``jobs`` jobs.

    Attributes:
        rss_mb: the worker's resident memory, in MB.
        redis_keys_mb: the memory of Valkey's data, including answers, in MB.
    """

    jobs: int
    jobs_per_s: float
    rss_mb: float
    descriptors: int
    threads: int
    redis_connections: int
    redis_keys_mb: float


def soak(total: int, folder: Path) -> Iterator[Sample]:
    """Run ``total`` single jobs and yield the samples; raise the error of a job that fails."""
    with ExitStack() as stack:
        valkey = stack.enter_context(RunningValkey(folder, persistent=True))
        switchboard = stack.enter_context(Switchboard())
        origin = stack.enter_context(Origin())
        origin.pages.update(jobs.pages())
        pictures = itertools.cycle(sorted(origin.pages))
        worker = WorkerPlace(
            0,
            valkey=valkey,
            line=switchboard.line(valkey.port),
            settings={
                "NAMESHOT_FETCH_ALLOW": f"127.0.0.1/32:{origin.port}",
                "NAMESHOT_LOG_LEVEL": "WARNING",
                "NAMESHOT_RESULT_TTL": "30",
                "NULL_FORWARD_MS": "1",
            },
            folder=folder,
        )
        stack.callback(worker.kill)
        while not worker.is_ready:
            time.sleep(0.05)
        client = stack.enter_context(Client(valkey.broker_url, valkey.result_backend, result_ttl=30))
        observer = stack.enter_context(redis.Redis.from_url(valkey.broker_url))
        each = total // SAMPLES
        for number in range(1, SAMPLES + 1):
            started_s = time.monotonic()
            for first in range(0, each, WINDOW):
                batch = [
                    (origin.url(next(pictures)), ["fox", f"label {index % 997}"])
                    for index in range(first, min(first + WINDOW, each))
                ]
                for job in list(client.submit_many(batch)):
                    job.result(timeout=TIMEOUT_S)
            for _ in range(RECONNECTIONS):
                worker.line.cut()
                worker.line.restore()
                client.classify(origin.url(next(pictures)), ["fox", "bear"], timeout=TIMEOUT_S)
            yield _sample(number * each, each / (time.monotonic() - started_s), worker.process.pid, observer)


def _sample(done: int, jobs_per_s: float, pid: int, observer: redis.Redis) -> Sample:
    process = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    return Sample(
        jobs=done,
        jobs_per_s=round(jobs_per_s, 1),
        rss_mb=round(int(status["VmRSS"].split()[0]) / 1000, 1),
        descriptors=len(list((process / "fd").iterdir())),
        threads=int(status["Threads"]),
        redis_connections=int(observer.info("clients")["connected_clients"]),
        redis_keys_mb=round(int(observer.info("memory")["used_memory_dataset"]) / 1e6, 1),
    )


def grown(samples: list[Sample]) -> dict[str, float]:
    """Return by how much the median of the last quarter exceeds that of the second, where it exceeds the tolerance."""
    quarter = max(1, len(samples) // 4)
    more = {
        name: statistics.median(getattr(sample, name) for sample in samples[-quarter:])
        - statistics.median(getattr(sample, name) for sample in samples[quarter : 2 * quarter])
        for name in TOLERANCE
    }
    return {name: round(value, 1) for name, value in more.items() if value > TOLERANCE[name]}


def main() -> int:
    """Run the soak test and print its samples; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000, help="single jobs (%(default)s)")
    parser.add_argument("--json", action="store_true", help="the samples as JSON")
    arguments = parser.parse_args()
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory() as folder:
        for sample in soak(arguments.jobs, Path(folder)):
            samples.append(sample)
            print(sample, file=sys.stderr, flush=True)
    more = grown(samples)
    if arguments.json:
        print(json.dumps({"samples": [asdict(sample) for sample in samples], "grown": more}, indent=2))
    else:
        table = Table(title=f"{arguments.jobs:,} jobs through one worker; grown: {more or 'nothing'}")
        for field in fields(Sample):
            table.add_column(field.name.replace("_", " "), justify="right")
        for sample in samples:
            table.add_row(*(f"{value:,}" for value in asdict(sample).values()))
        Console(width=120).print(table)
    return 1 if more else 0


if __name__ == "__main__":
    raise SystemExit(main())
