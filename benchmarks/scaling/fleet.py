"""Runs workers with simulated devices as child processes, whose number can grow."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from benchmarks.scaling.costs import process_cpu_s
from producer.processes.child import ChildProcess

ROOT = Path(__file__).parents[2]
#: Sixteen workers that start at once on two cores take some 15 s.
READY_TIMEOUT_S = 120.0
STOP_GRACE_S = 15.0


class Fleet:
    """Workers of one kind. As a context manager, the fleet ends them on exit.

    Args:
        settings: the workers' environment variables, in addition to those of this process.
        folder: the folder for the workers' logs.
    """

    def __init__(self, settings: Mapping[str, str], folder: Path) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("NAMESHOT_")}
        # The picture is always the same, but every job must do all of its work.
        every_time = {"NAMESHOT_EMBEDDING_CACHE_BYTES": "0", "NAMESHOT_FETCH_COALESCE": "false"}
        self._environment = {**inherited, "NAMESHOT_METRICS_PORT": "0", **every_time, **settings}
        self._folder = folder
        self._workers: list[ChildProcess] = []

    def __len__(self) -> int:
        return len(self._workers)

    def grow(self, count: int) -> None:
        """Start workers until there are ``count``, and return once all of them take jobs."""
        ready_files = [self._start(number) for number in range(len(self), count)]
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while not all(file.exists() for file in ready_files):
            for worker in self._workers:
                if not worker.is_running():
                    raise RuntimeError(f"{worker.log.stem} {worker.describe_exit()}: {worker.last_log_line()}")
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"{count} workers were not ready within {READY_TIMEOUT_S:.0f} s")
            time.sleep(0.05)

    def cpu_s(self) -> float:
        """Return the CPU seconds that all workers have used since they were started."""
        return sum(process_cpu_s(worker.pid) for worker in self._workers)

    def _start(self, number: int) -> Path:
        name = f"worker-{number}"
        ready_file = self._folder / f"{name}.ready"
        self._workers.append(
            ChildProcess(
                [sys.executable, "-m", "celery", "-A", "benchmarks.scaling.worker", "worker", "-n", f"{name}@%h"],
                folder=ROOT,
                log=self._folder / f"{name}.log",
                environment={**self._environment, "NAMESHOT_READY_FILE": str(ready_file)},
            )
        )
        return ready_file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.send(signal.SIGTERM)
        for worker in self._workers:
            worker.wait(STOP_GRACE_S)
            worker.stop(0)
