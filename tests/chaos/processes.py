"""The workers and producers of a run: each has a place of its own, in which replacements follow one another."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from producer.embedded import RunningValkey
from producer.processes.child import ChildProcess
from tests.chaos.proxy import Line

ROOT = Path(__file__).parents[2]


class Place:
    """One process at a time, which reaches Valkey through a line of its own; the first one runs at once.

    Args:
        name: of the place; the process that runs there n-th logs to ``<name>.<n>.log``.
        module_arguments: what follows ``python -m``.
        folder: where logs and files of the run lie.
    """

    def __init__(
        self,
        name: str,
        module_arguments: Sequence[str],
        *,
        valkey: RunningValkey,
        line: Line,
        environment: Mapping[str, str],
        folder: Path,
    ) -> None:
        self.name = name
        self.line = line
        self._module_arguments = module_arguments
        self._folder = folder
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("NAMESHOT_", "NULL_"))}
        self._environment = {
            **inherited,
            "NAMESHOT_BROKER_URL": _through(line, valkey, 0),
            "NAMESHOT_RESULT_BACKEND": _through(line, valkey, 1),
            "PYTHONUNBUFFERED": "1",
            **environment,
        }
        self._starts = 0
        self.process = self._start()

    @property
    def is_running(self) -> bool:
        """Whether its process has not ended."""
        return self.process.is_running()

    def kill(self) -> int:
        """``kill -9``; returns the process id once it has ended."""
        pid = self.process.pid
        self.process.stop(0)
        return pid

    def replace(self) -> None:
        """Start the next process; the one before it has ended."""
        self.process = self._start()

    def _start(self) -> ChildProcess:
        self._starts += 1
        return ChildProcess(
            self.name,
            [sys.executable, "-m", *self._module_arguments],
            folder=ROOT,
            log=self._folder / f"{self.name}.{self._starts}.log",
            environment=self._environment,
        )


class WorkerPlace(Place):
    """A null worker's place.

    Attributes:
        is_frozen: between SIGSTOP and SIGCONT.
        is_stopping: after SIGTERM, until its replacement runs.
    """

    def __init__(
        self, number: int, *, valkey: RunningValkey, line: Line, settings: Mapping[str, str], folder: Path
    ) -> None:
        name = f"worker-{number}"
        self._ready_file = folder / f"{name}.ready"
        self.is_frozen = False
        self.is_stopping = False
        super().__init__(
            name,
            ["celery", "-A", "tests.chaos.null_worker", "worker", "-n", f"{name}@%h"],
            valkey=valkey,
            line=line,
            environment={
                "NAMESHOT_READY_FILE": str(self._ready_file),
                "NAMESHOT_METRICS_PORT": "0",
                **settings,
            },
            folder=folder,
        )

    @property
    def is_ready(self) -> bool:
        """Whether it runs, takes jobs, and nothing is being done to it."""
        undisturbed = not (self.is_frozen or self.is_stopping or self.line.is_cut)
        return undisturbed and self._ready_file.exists() and self.is_running

    def terminate(self) -> None:
        """SIGTERM: it finishes what it has, and ends."""
        self.is_stopping = True
        os.kill(self.process.pid, signal.SIGTERM)

    def freeze(self) -> None:
        """SIGSTOP, as a machine that is suspended or swaps."""
        self.is_frozen = True
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.is_frozen = False
        if self.is_running:
            os.kill(self.process.pid, signal.SIGCONT)

    def _start(self) -> ChildProcess:
        self._ready_file.unlink(missing_ok=True)
        self.is_frozen = self.is_stopping = False
        return super()._start()


class ProducerPlace(Place):
    """The place of a producer that submits its share of the jobs and ends; see `tests.chaos.producing`.

    Attributes:
        accepted: the file with the ids of the jobs whose submission returned.
    """

    def __init__(
        self, number: int, kind: str, arguments: Sequence[str], *, valkey: RunningValkey, line: Line, folder: Path
    ) -> None:
        name = f"producer-{number}"
        self.accepted = folder / f"{name}.accepted"
        super().__init__(
            name,
            ["tests.chaos.producing", kind, "--accepted", str(self.accepted), *arguments],
            valkey=valkey,
            line=line,
            environment={},
            folder=folder,
        )

    @property
    def is_done(self) -> bool:
        """Whether it has submitted all of its jobs."""
        return self.process.describe_exit() == "ended with status 0"


def _through(line: Line, valkey: RunningValkey, database: int) -> str:
    """The URL of a database behind a line."""
    return valkey.url(database).replace(f":{valkey.port}/", f":{line.port}/")
