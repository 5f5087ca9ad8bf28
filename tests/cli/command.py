"""The real command, run as a user runs it, and a look at what it leaves running."""

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

#: Beside the running Python, where `make install` puts it.
NAMESHOT = Path(sys.executable).with_name("nameshot")
#: A command that takes longer hangs; a worker's start on a busy machine has taken 70 s.
TIMEOUT_S = 200.0


@dataclass(frozen=True)
class Finished:
    """A command that ended."""

    status: int
    out: str
    err: str
    cpu_s: float

    @property
    def json_lines(self) -> list[dict[str, Any]]:
        """Standard output, as programs read it."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def sentence(self) -> str:
        """The one line on standard error, or a failed assertion."""
        (line,) = self.err.splitlines()
        assert line.startswith("nameshot: ")
        assert line.endswith(".")
        return line.removeprefix("nameshot: ")


@dataclass(frozen=True)
class Home:
    """A user of their own: a data folder, a temporary folder, and the environment that leads there."""

    folder: Path
    environment: Mapping[str, str]

    @classmethod
    def make(cls, folder: Path, **environment: str) -> Home:
        """A new user in an empty folder."""
        (folder / "tmp").mkdir()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("NAMESHOT_")}
        places = {"XDG_DATA_HOME": str(folder / "data"), "TMPDIR": str(folder / "tmp"), "COLUMNS": "100"}
        return cls(folder, {**inherited, **places, **environment})

    def with_settings(self, **environment: str) -> Home:
        """The same user, in another terminal with other variables."""
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
        """Start a command that runs on; its output goes to files."""
        return Running(self, [str(argument) for argument in arguments])

    def processes(self) -> dict[int, str]:
        """Every process that works in this user's folders, zombies aside: what a command has left behind."""
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
        """Fail when a process is left after a few seconds: the kernel needs a moment for large ones."""
        deadline = time.monotonic() + 10
        while left := self.processes():
            assert time.monotonic() < deadline, left
            time.sleep(0.05)


class Running:
    """A command that runs; a context manager that ends it."""

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
        """Return once it has printed a text; fail when it ends first, or after `TIMEOUT_S`."""
        deadline = time.monotonic() + TIMEOUT_S
        while text not in self.out + self.err:
            ended = self.process.poll() is not None
            if ended and text not in self.out + self.err:
                raise AssertionError(f"ended with {self.process.returncode}: {self.out}{self.err}")
            assert time.monotonic() < deadline, f"no {text!r} in: {self.out}{self.err}"
            time.sleep(0.02)

    def child(self, command: str) -> int:
        """The process id of the one child that runs a command."""
        (pid,) = (pid for pid, line in self.home.processes().items() if command in line and pid != self.process.pid)
        return pid

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the command itself."""
        self.process.send_signal(number)

    def ended(self) -> int:
        """Its exit status, once it has ended."""
        return self.process.wait(TIMEOUT_S)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(TIMEOUT_S)
