"""Null workers that are started again when a job has killed them, as a supervisor would."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Self

from tests.acceptance.worker_process import Worker
from tests.valkey_server import ValkeyServer

#: The smallest value that the setting permits.
MAX_ATTEMPTS = 3
POISON = "nightshade"


class SupervisedWorker:
    """One null worker after another, until the context ends.

    Attributes:
        worker: the worker that runs now.
        starts: how many workers were started.
    """

    def __init__(
        self, folder: Path, valkey: ValkeyServer, *, fetch_port: int, poison_label: str | None = None, **settings: str
    ) -> None:
        self._folder = folder
        self._settings = {
            **valkey.settings("worker"),
            "NAMESHOT_FETCH_ALLOW": f"127.0.0.1/32:{fetch_port}",
            "NAMESHOT_MAX_ATTEMPTS": str(MAX_ATTEMPTS),
            "NAMESHOT_METRICS_PORT": "0",
            **({"NULL_POISON_LABEL": poison_label} if poison_label else {}),
            **settings,
        }
        self.starts = 0
        self.worker: Worker
        self._ends = False
        self._thread = threading.Thread(target=self._supervise)

    @property
    def log(self) -> str:
        """Return what all the workers printed."""
        return "".join(file.read_text(errors="replace") for file in sorted(self._folder.glob("*/worker.log")))

    def _start(self) -> Worker:
        self.starts += 1
        folder = self._folder / str(self.starts)
        folder.mkdir(parents=True)
        command = (sys.executable, "-m", "celery", "-A", "tests.chaos.null_worker", "worker", "-n", f"{self.starts}@%h")
        return Worker(folder, self._settings, command)

    def _supervise(self) -> None:
        while True:
            self.worker.process.wait()
            if self._ends:
                return
            self.worker = self._start()

    def __enter__(self) -> Self:
        self.worker = self._start()
        self.worker.wait_until_ready()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends = True
        while self._thread.is_alive():  # also ends the successor of a worker that died just now
            self.worker.stop()
            self._thread.join(0.1)
