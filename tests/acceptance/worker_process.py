"""``celery -A worker worker`` as a child process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from tests.acceptance.forks import Fork, Process

ROOT = Path(__file__).parents[2]
READY_TIMEOUT_S = 90.0


class Worker:
    """One worker process; a context manager that ends it.

    Args:
        source: the folder from which the process imports the worker.
        is_new: whether ``python -m …`` starts as a new process, not as a `Fork`, which costs a tenth of that.

    Attributes:
        log_file: the file with everything that the worker printed.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str],
        command: tuple[str, ...] = (),
        source: Path = ROOT,
        *,
        is_new: bool = False,
    ) -> None:
        self.log_file = folder / "worker.log"
        self._ready_file = folder / "ready"
        self._settings = settings
        self._source = source
        self._command = command or (sys.executable, "-m", "celery", "-A", "worker", "worker", "-n", f"{folder.name}@%h")
        self._is_forked = not is_new and source == ROOT and self._command[:2] == (sys.executable, "-m")
        self.process = self._start()

    def _start(self) -> Process:
        self._ready_file.unlink(missing_ok=True)
        env = {**os.environ, "NAMESHOT_READY_FILE": str(self._ready_file), **self._settings}
        if self._is_forked:
            return Fork(self._command, cwd=self._source, env=env, log=self.log_file)
        with self.log_file.open("ab") as log:
            return subprocess.Popen(self._command, cwd=self._source, env=env, stdout=log, stderr=subprocess.STDOUT)

    @property
    def log(self) -> str:
        """What the worker has printed so far."""
        return self.log_file.read_text(errors="replace")

    @property
    def is_ready(self) -> bool:
        """Whether the worker's ready file exists."""
        return self._ready_file.exists()

    def wait_until_ready(self) -> None:
        """Return once the worker takes jobs."""
        self._wait_for(lambda: self.is_ready)

    def wait_for_log(self, text: str) -> None:
        """Return once the worker has printed the text."""
        self._wait_for(lambda: text in self.log)

    def _wait_for(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not holds():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 30) -> int:
        """Send a signal and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
