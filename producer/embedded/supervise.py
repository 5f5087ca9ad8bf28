"""Keep the parts of an embedded system running, and give up on a part that keeps dying."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import Final, Protocol

from producer.embedded.valkey import RunningValkey
from producer.embedded.worker import WorkerProcess
from producer.errors import EmbeddedError
from producer.processes.child import ChildProcess
from producer.processes.keeper import POLL_INTERVAL_S, Supervised, Supervisor

#: After more deaths than this in a row, without a steady period between them, another restart is pointless.
MAX_DEATHS: Final = 5
#: A worker writes one line of about 150 bytes per job, so a log of this size covers the last 100,000 jobs.
_MAX_LOG_BYTES: Final = 16_000_000


class LoggedProcess(Supervised, Protocol):
    """A part of the system that writes a log."""

    @property
    def process(self) -> ChildProcess:
        """The current process, running or ended."""

    def is_ready(self) -> bool:
        """Return whether the process does its work."""


def supervise(
    valkey: RunningValkey, worker: WorkerProcess, say: Callable[[str], None], on_poll: Callable[[], None]
) -> None:
    """Keep Valkey and the worker running until ``on_poll`` raises or one of them keeps dying."""
    parts: tuple[tuple[str, LoggedProcess], ...] = (("Valkey", valkey), ("the worker", worker))
    keepers = [
        Supervisor(name, part, say, is_ready=part.is_ready, on_death=give_up(name, part)) for name, part in parts
    ]
    while True:
        on_poll()
        for keeper in keepers:
            keeper.tick()
        for process in (valkey.process, worker.process):
            keep_log_short(process)
        time.sleep(POLL_INTERVAL_S)


def give_up(name: str, part: LoggedProcess) -> Callable[[int, str], None]:
    """Return an ``on_death`` that raises `EmbeddedError`, with the part's last log line, after too many deaths."""

    def raise_if_too_many(deaths: int, what_happened: str) -> None:
        if deaths > MAX_DEATHS:
            raise EmbeddedError(
                f"{name} {what_happened} for the {deaths}th time; its last log line: "
                f"{part.process.last_log_line() or 'none'} (see {part.process.log})."
            )

    return raise_if_too_many


def keep_log_short(process: ChildProcess, max_bytes: int = _MAX_LOG_BYTES) -> None:
    """Copy a log of more than ``max_bytes`` to another file and empty it; the child appends to the emptied file."""
    if process.log.exists() and process.log.stat().st_size > max_bytes:
        shutil.copyfile(process.log, process.log.with_suffix(".1.log"))
        with process.log.open("r+b") as file:
            file.truncate(0)
