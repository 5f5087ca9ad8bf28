"""The workers and producers of a run, each in a place in which replacements follow one another."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from producer.embedded.valkey import RunningValkey
from producer.processes.child import ChildProcess
from tests.chaos.proxy import Line

ROOT = Path(__file__).parents[2]
#: How many of a process's last log lines the report shows.
LAST_LINES = 30


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that has ended: its name, how it ended, and the last lines of its log."""

    name: str
    how: str
    last_lines: str

    def __str__(self) -> str:
        return f"{self.name} {self.how}:\n{self.last_lines}"


class Place:
    """One process at a time, connected to each Valkey through its own `Line`; the first process starts at once.

    Args:
        name: The place's name; its n-th process logs to ``<name>.<n>.log``.
        module_arguments: The arguments after ``python -m``.
        valkey, line: The broker, and the line to it.
        results: The result backend and the line to it; None if the broker's server also holds the answers.
        folder: The folder of the run's logs and files.
    """

    def __init__(
        self,
        name: str,
        module_arguments: Sequence[str],
        *,
        valkey: RunningValkey,
        line: Line,
        results: tuple[RunningValkey, Line] | None = None,
        environment: Mapping[str, str],
        folder: Path,
    ) -> None:
        self.name = name
        self.line = line
        self._results_line = results[1] if results else line
        self._module_arguments = module_arguments
        self._folder = folder
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("NAMESHOT_", "NULL_"))}
        self._environment = {
            **inherited,
            "NAMESHOT_BROKER_URL": _through(line, valkey, 0),
            "NAMESHOT_RESULT_BACKEND": _through(results[1], results[0], 0) if results else _through(line, valkey, 1),
            "PYTHONUNBUFFERED": "1",
            **environment,
        }
        self._starts = 0
        self.process = self._start()

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return self.process.is_running()

    @property
    def is_cut(self) -> bool:
        """Whether the process is cut off from one of the servers."""
        return self.line.is_cut or self._results_line.is_cut

    def cut(self, *, broker: bool = True, results: bool = True) -> None:
        """Break the process's connections, and each new one until `restore`."""
        for line, is_meant in ((self.line, broker), (self._results_line, results)):
            if is_meant:
                line.cut()

    def restore(self) -> None:
        """Let connections through again."""
        for line in (self.line, self._results_line):
            line.restore()

    def kill(self) -> int:
        """``kill -9``; returns the process id once it has ended."""
        pid = self.process.pid
        self.process.stop(0)
        return pid

    def replace(self) -> None:
        """Start the next process; the previous one must have ended."""
        self.process = self._start()

    def ended(self) -> Ended:
        """Return how the process ended."""
        lines = self.process.log.read_text(errors="replace").splitlines()
        return Ended(self.process.log.stem, self.process.describe_exit(), "\n".join(lines[-LAST_LINES:]))

    def _start(self) -> ChildProcess:
        self._starts += 1
        return ChildProcess(
            [sys.executable, "-m", *self._module_arguments],
            folder=ROOT,
            log=self._folder / f"{self.name}.{self._starts}.log",
            environment=self._environment,
        )


class WorkerPlace(Place):
    """The place of a null worker.

    Attributes:
        is_frozen: True between SIGSTOP and SIGCONT.
        is_stopping: True from SIGTERM until the replacement runs.
    """

    def __init__(
        self,
        number: int,
        *,
        valkey: RunningValkey,
        line: Line,
        results: tuple[RunningValkey, Line] | None = None,
        settings: Mapping[str, str],
        folder: Path,
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
            results=results,
            environment={
                "NAMESHOT_READY_FILE": str(self._ready_file),
                "NAMESHOT_METRICS_PORT": "0",
                **settings,
            },
            folder=folder,
        )

    @property
    def is_ready(self) -> bool:
        """Whether the worker runs, takes jobs, and is not disturbed."""
        undisturbed = not (self.is_frozen or self.is_stopping or self.is_cut)
        return undisturbed and self._ready_file.exists() and self.is_running

    def terminate(self) -> None:
        """Send SIGTERM: the worker finishes its jobs and ends."""
        self.is_stopping = True
        os.kill(self.process.pid, signal.SIGTERM)

    def freeze(self) -> None:
        """Send SIGSTOP, as if the machine were suspended."""
        self.is_frozen = True
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Send SIGCONT."""
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
        accepted: The file with the ids of the jobs whose submission returned.
    """

    def __init__(
        self,
        number: int,
        kind: str,
        arguments: Sequence[str],
        *,
        valkey: RunningValkey,
        line: Line,
        results: tuple[RunningValkey, Line] | None = None,
        folder: Path,
    ) -> None:
        name = f"producer-{number}"
        self.accepted = folder / f"{name}.accepted"
        super().__init__(
            name,
            ["tests.chaos.producing", kind, "--accepted", str(self.accepted), *arguments],
            valkey=valkey,
            line=line,
            results=results,
            environment={},
            folder=folder,
        )

    @property
    def is_done(self) -> bool:
        """Whether the producer has submitted all its jobs."""
        return self.process.describe_exit() == "ended with status 0"


def _through(line: Line, valkey: RunningValkey, database: int) -> str:
    """Return the URL of a database through a line."""
    return valkey.url(database).replace(f":{valkey.port}/", f":{line.port}/")
