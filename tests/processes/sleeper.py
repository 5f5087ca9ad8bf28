"""A part for a supervisor to keep running, and a clock that a test sets."""

import os
from pathlib import Path

from producer.processes.child import ChildProcess


class Sleeper:
    """A part with a real process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.starts = 0
        self.restart()

    def restart(self) -> None:
        self.starts += 1
        self.process = ChildProcess(
            ["/bin/sh", "-c", "echo last words; exec sleep 600"],
            folder=self.folder,
            log=self.folder / "sleeper.log",
            environment={"PATH": os.defpath},
        )

    def is_ready(self) -> bool:
        return self.process.last_log_line() == "last words"

    def die(self) -> None:
        while not self.is_ready():
            assert self.process.is_running()
        self.process.stop(0)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s
