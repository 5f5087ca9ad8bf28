"""Run one worker as a child process: start it, wait until it is ready, and stop it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Self

from producer.errors import EmbeddedError
from producer.processes.child import ChildProcess

#: Long enough to load a large checkpoint from a slow disk; the bundled one takes seconds.
READY_TIMEOUT_S: Final = 900.0
#: Longer than the worker's own drain timeout (10 s by default).
STOP_GRACE_S: Final = 15.0
_POLL_INTERVAL_S: Final = 0.05
#: The part of a log line before the message, such as ``12:34:56 INFO    worker.jobs.tasks  ``.
_LOG_PREFIX: Final = re.compile(r"^\d\d:\d\d:\d\d [A-Z]+ +\S+  ")


class WorkerProcess:
    """A ``celery -A worker worker`` that cannot outlive this process.

    Args:
        settings: all of the worker's ``NAMESHOT_…`` variables; the worker inherits this process's other variables.
        folder: a private folder for the worker's log and ready file, which is also its working directory.
    """

    def __init__(self, settings: Mapping[str, str], folder: Path) -> None:
        self._folder = folder
        self._ready_file = folder / "worker.ready"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("NAMESHOT_")}
        self._environment = {
            **inherited,
            **settings,
            "NAMESHOT_READY_FILE": str(self._ready_file),
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": _python_path(inherited.get("PYTHONPATH")),
        }
        self.process = self._start()

    def restart(self) -> None:
        """Start a new worker in place of one that has ended."""
        self.process.stop(0)
        self.process = self._start()

    def is_ready(self) -> bool:
        """Return whether the worker runs and takes jobs."""
        return self.process.is_running() and self._ready_file.exists()

    def raise_if_ended(self) -> None:
        """Raise `EmbeddedError`, with the worker's last log line, if the worker is no longer running."""
        if self.process.is_running():
            return
        how = self.process.describe_exit()
        # The last log line of a killed process does not say why it ended.
        reason = last_message(self.process) if how.startswith("ended") else ""
        when = "" if self._was_ready else " before it was ready"
        raise EmbeddedError(f"the worker {how}{when}{': ' + reason.rstrip('.') if reason else ''}.")

    def wait_until_ready(self, timeout_s: float = READY_TIMEOUT_S, on_poll: Callable[[], None] = lambda: None) -> None:
        """Wait until the worker takes jobs; meanwhile, call ``on_poll`` about 20 times a second.

        Raises:
            EmbeddedError: the worker ended, or was not ready in time.
        """
        deadline = time.monotonic() + timeout_s
        while not self._ready_file.exists():
            self.raise_if_ended()
            on_poll()
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"the worker was not ready within {timeout_s:.0f} s; its last log line: "
                    f"{last_message(self.process) or 'none'}"
                )
            time.sleep(_POLL_INTERVAL_S)
        self._was_ready = True

    def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """Send SIGTERM, on which the worker finishes its jobs, and kill it if it still runs after ``grace_s``."""
        self.process.stop(grace_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> ChildProcess:
        self._ready_file.unlink(missing_ok=True)
        self._was_ready = False
        return ChildProcess(
            [sys.executable, "-m", "celery", "-A", "worker", "worker"],
            # Celery puts its working directory first on the import path; a private folder contains no other `worker`.
            folder=self._folder,
            log=self._folder / "worker.log",
            environment=self._environment,
            death_signal=signal.SIGKILL,
        )


def last_message(process: ChildProcess) -> str:
    """Return the last message that a worker logged, without its time, level and logger."""
    line = process.last_log_line()
    if line.startswith("{"):
        with contextlib.suppress(ValueError, KeyError):
            return str(json.loads(line)["message"])
    return _LOG_PREFIX.sub("", line)


def _python_path(inherited: str | None) -> str:
    """Return the import path with this installation first, so that the worker has the same version as this process."""
    here = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join(part for part in (here, inherited) if part)
