"""Measures the CPU milliseconds per job by stage, of single jobs and in bulk."""

from __future__ import annotations

import itertools
import json
import os
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.labels import Labels
from benchmarks.memory import family
from benchmarks.peers.contenders import free_port
from benchmarks.scaling.costs import process_cpu_s
from benchmarks.session import valkey_cpu_s
from benchmarks.stages.split import by_stage
from benchmarks.system import PICTURES, bulk_images, embedded_valkey, single_jobs, worker_settings
from producer import Client
from producer.processes.child import ChildProcess

ROOT = Path(__file__).parents[2]
LOADS = (("single", single_jobs), ("bulk", bulk_images))
READY_TIMEOUT_S = 120.0
STOP_GRACE_S = 15.0


def stages(model: Path | str, picture_port: int, jobs: int, each_labels: Sequence[Labels]) -> Iterator[dict[str, Any]]:
    """Yield, for each kind of labels, a row for single jobs and a row for the same images in bulk."""
    with tempfile.TemporaryDirectory() as folder, embedded_valkey() as valkey:
        settings = worker_settings(valkey, model, picture_port)
        with (
            _worker(settings, Path(folder)) as read,
            Client(valkey.broker_url, valkey.result_backend) as client,
        ):

            def url(number: int) -> str:
                return f"http://127.0.0.1:{picture_port}/{number % PICTURES}.jpg"

            def used() -> dict[str, float]:
                return {**read(), "valkey": valkey_cpu_s(valkey), "client": time.process_time()}

            for labels, (load, ask) in itertools.product(each_labels, LOADS):
                ask(client, url, min(jobs, 64), labels)
                before = used()
                run = ask(client, url, jobs, labels)
                row = by_stage(before, used(), jobs)
                yield {"labels": labels.count, "load": load, "jobs_per_s": round(run.per_s, 2), **row}


@contextmanager
def _worker(settings: Mapping[str, str], folder: Path) -> Iterator[Callable[[], dict[str, float]]]:
    port, ready_file = free_port(), folder / "ready"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("NAMESHOT_")}
    mine = {"NAMESHOT_READY_FILE": str(ready_file), "STAGES_PORT": str(port)}
    worker = ChildProcess(
        [sys.executable, "-m", "celery", "-A", "benchmarks.stages.worker", "worker"],
        folder=ROOT,
        log=folder / "worker.log",
        environment={**inherited, **settings, **mine},
    )

    def read() -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as response:
            told = json.load(response)
        decoders_s = sum(process_cpu_s(pid) for pid in family(worker.pid) if pid != told["pid"])
        return {
            "process": told["process_s"],
            "native": told["native_s"],
            "decoders": decoders_s,
            **told["stages_s"],
        }

    try:
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while not ready_file.exists():
            if not worker.is_running() or time.monotonic() > deadline_s:
                raise RuntimeError(
                    f"the worker with clocks is not ready; it {worker.describe_exit()}: {worker.last_log_line()}"
                )
            time.sleep(0.05)
        yield read
    finally:
        worker.stop(STOP_GRACE_S)
