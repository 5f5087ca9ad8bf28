"""Keep the parts of an embedded system running, and give up one that will not come back by itself."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import Final, Protocol

from producer.embedded.failure import EmbeddedError
from producer.embedded.system import EmbeddedSystem
from producer.processes.child import ChildProcess
from producer.processes.keeper import POLL_INTERVAL_S, Supervised, Supervisor

#: A part that dies this often in a row, never steady in between, will not come back by itself.
MAX_DEATHS: Final = 5
#: A worker writes one line a job; at about 150 bytes a line this is the last 100,000 jobs.
_MAX_LOG_BYTES: Final = 16_000_000


class LoggedProcess(Supervised, Protocol):
    """A part of the system."""

    @property
    def process(self) -> ChildProcess:
        """The process that runs now, or ended."""

    def is_ready(self) -> bool:
        """Whether it does its work."""


def supervise(system: EmbeddedSystem, say: Callable[[str], None], on_poll: Callable[[], None]) -> None:
    """Watch over Valkey and the worker until ``on_poll`` raises, or one of them cannot be kept running."""
    valkey, worker = system.valkey, system.worker
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
    """For a `Supervisor`: raises `EmbeddedError` with a part's last words when it died more than `MAX_DEATHS` times."""

    def judge(deaths: int, what_happened: str) -> None:
        if deaths > MAX_DEATHS:
            raise EmbeddedError(
                f"{name} {what_happened} for the {deaths}th time; its last words were: "
                f"{part.process.last_log_line() or 'none'} (all of them are in {part.process.log})."
            )

    return judge


def keep_log_short(process: ChildProcess, max_bytes: int = _MAX_LOG_BYTES) -> None:
    """Move a log that has grown beyond ``max_bytes`` aside; the child appends, so it goes on at the start."""
    if process.log.exists() and process.log.stat().st_size > max_bytes:
        shutil.copyfile(process.log, process.log.with_suffix(".1.log"))
        with process.log.open("r+b") as file:
            file.truncate(0)
