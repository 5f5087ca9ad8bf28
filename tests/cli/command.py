"""Runs the real command as a user would, and finds the processes that it leaves."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: The command beside the running Python, where `make install` puts it.
NAMESHOT = Path(sys.executable).with_name("nameshot")
#: A command that takes longer counts as hanging; on a busy machine a worker's start has taken 70 s.
TIMEOUT_S = 200.0


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    status: int
    out: str
    err: str
    cpu_s: float

    @property
    def json_lines(self) -> list[dict[str, Any]]:
        """The JSON value of each line of standard output."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def sentence(self) -> str:
        """The only line on standard error; fails if there is none, or more than one."""
        (line,) = self.err.splitlines()
        assert line.startswith("nameshot: ")
        assert line.endswith(".")
        return line.removeprefix("nameshot: ")


@dataclass(frozen=True)
class Home:
    """A separate user: an own data folder and temporary folder, and the environment that names them."""

    folder: Path
    environment: Mapping[str, str]

    @classmethod
    def make(cls, folder: Path, **environment: str) -> Home:
        """Return a new user whose folder is empty."""
        (folder / "tmp").mkdir()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("NAMESHOT_")}
        places = {"XDG_DATA_HOME": str(folder / "data"), "TMPDIR": str(folder / "tmp"), "COLUMNS": "100"}
        return cls(folder, {**inherited, **places, **environment})

    def with_settings(self, **environment: str) -> Home:
        """Return the same user in another terminal, with further variables."""
        return Home(self.folder, {**self.environment, **environment})

    def run(self, *arguments: object, input_text: str = "") -> Finished:
        """Run a command to its end."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [NAMESHOT, *map(str, arguments)],
            env=self.environment,
            cwd=self.folder,
            input=input_text,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=TIMEOUT_S,
            check=False,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return Finished(done.returncode, done.stdout, done.stderr, after.ru_utime - before.ru_utime)

    def start(self, *arguments: object) -> Running:
        """Start a command without waiting for its end; its output goes to files."""
        return Running(self, [str(argument) for argument in arguments])

    def processes(self) -> dict[int, str]:
        """Return every process, except zombies, whose working directory is in this user's folder, by its id."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                where = str((process / "cwd").readlink())
                command = (process / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
            if where.startswith(str(self.folder)) and command:
                found[int(process.name)] = command
        return found

    def assert_nothing_runs(self) -> None:
        """Fail if a process is left after ten seconds, in which the kernel can clear up large ones."""
        deadline = time.monotonic() + 10
        while left := self.processes():
            assert time.monotonic() < deadline, left
            time.sleep(0.05)


class Running:
    """A running command; a context manager that ends it."""

    def __init__(self, home: Home, arguments: list[str]) -> None:
        self.home = home
        name = f"{arguments[0]}-{time.monotonic_ns()}"
        self._out, self._err = home.folder / f"{name}.out", home.folder / f"{name}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [NAMESHOT, *arguments],
                env=home.environment,
                cwd=home.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def out(self) -> str:
        """Standard output so far."""
        return self._out.read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        """Standard error so far."""
        return self._err.read_text(encoding="utf-8")

    def wait_for(self, text: str) -> None:
        """Return once the command has printed a text; fail if it ends first, or after `TIMEOUT_S`."""
        deadline = time.monotonic() + TIMEOUT_S
        while text not in self.out + self.err:
            ended = self.process.poll() is not None
            if ended and text not in self.out + self.err:
                raise AssertionError(f"ended with {self.process.returncode}: {self.out}{self.err}")
            assert time.monotonic() < deadline, f"no {text!r} in: {self.out}{self.err}"
            time.sleep(0.02)

    def child(self, command: str) -> int:
        """Return the id of the only process of this user, besides this one, whose command line contains ``command``."""
        (pid,) = (pid for pid, line in self.home.processes().items() if command in line and pid != self.process.pid)
        return pid

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the command itself."""
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait for the end of the command, and return its exit status."""
        return self.process.wait(TIMEOUT_S)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(TIMEOUT_S)
