"""An engine process that may die, freeze or hang, and is then replaced."""

import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np

from worker.model.interface import Prepared
from worker.runtime.heartbeat import HeartbeatMonitor

ROOT = Path(__file__).parents[2]
#: How long an engine may be silent while it uses no CPU time, and in any case. An engine sends a heartbeat each second,
#: later on a busy machine.
FROZEN_S = 4.0
LIMIT_S = 60.0
LOOK_S = 0.1


class KeptEngine:
    """Starts one fragile engine process after another and kills frozen ones, as the launcher would.

    Args:
        environment: Further variables.

    Attributes:
        statuses: the exit status of each process that has ended.
        frozen_reasons: the reason for each process that was killed as frozen.
    """

    def __init__(self, path: Path, folder: Path, parallel_batches: int = 1, **environment: str) -> None:
        self.log_file = folder / "engine.log"
        self.lost, self.hang, self._trace = folder / "lost", folder / "hang", folder / "trace"
        self._command = [sys.executable, "-m", "tests.engine_process.null_engine", str(path)]
        self._environment = {
            **os.environ,
            "NAMESHOT_MAX_BATCH": "4",
            "NAMESHOT_JOB_TIMEOUT": "1",
            "NAMESHOT_DRAIN_TIMEOUT": "0",
            "NULL_LOST": str(self.lost),
            "NULL_HANG": str(self.hang),
            "NULL_DEVICE": "cpu",
            "NULL_PARALLEL": str(parallel_batches),
            "NULL_TRACE": str(self._trace),
            **environment,
        }
        self._signs = HeartbeatMonitor(LIMIT_S, frozen_s=FROZEN_S)
        self.statuses: list[int] = []
        self.frozen_reasons: list[str] = []
        self._ends = False
        #: Whether frozen processes are killed.
        self.watches = True
        self.process = self._start()
        self._thread = threading.Thread(target=self._keep)
        self._thread.start()

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    @property
    def batches(self) -> list[int]:
        """The size of each batch of images that any of the processes began."""
        return [int(line) for line in self._trace.read_text().split()]

    def _start(self) -> "subprocess.Popen[bytes]":
        with self.log_file.open("ab") as log, self._signs.monitor_next() as signs:
            return subprocess.Popen(
                [*self._command, str(signs)],
                env=self._environment,
                cwd=ROOT,
                stdout=log,
                stderr=log,
                pass_fds=[signs],
            )

    def _keep(self) -> None:
        while True:
            status = None
            while status is None:
                with suppress(subprocess.TimeoutExpired):
                    status = self.process.wait(LOOK_S)
                if self.watches and status is None and (frozen_reason := self._signs.frozen_reason(self.process.pid)):
                    self.frozen_reasons.append(frozen_reason)
                    self.process.kill()
            if self._ends:
                return
            self.statuses.append(status)
            self.process = self._start()

    def close(self) -> None:
        self._ends = True
        while self._thread.is_alive():
            self.process.kill()  # it may hang or be frozen, and if tests run in the background it ignores SIGQUIT
            self._thread.join(0.2)


def image(first: int) -> Prepared:
    return Prepared({"pixels": np.full((8, 8, 3), first, np.uint8)}, None)
