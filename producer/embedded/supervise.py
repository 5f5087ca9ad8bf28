"""Keep the parts of a system running: what dies by itself is started again, ever more slowly."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import Final, Protocol

from producer.embedded.failure import EmbeddedError
from producer.embedded.process import ChildProcess
from producer.embedded.system import EmbeddedSystem

#: A part that dies this often in a row, each time within `_STEADY_AFTER_S`, will not come back by itself.
MAX_DEATHS: Final = 5
_STEADY_AFTER_S: Final = 60.0
_FIRST_DELAY_S: Final = 1.0
_MAX_DELAY_S: Final = 30.0
#: A person notices nothing below a quarter of a second, and an idle computer nothing above.
_POLL_INTERVAL_S: Final = 0.25
#: A worker writes one line a job; at about 150 bytes a line this is the last 100,000 jobs.
_MAX_LOG_BYTES: Final = 16_000_000


class Part(Protocol):
    """What can be kept running."""

    @property
    def process(self) -> ChildProcess:
        """The process that runs now, or ended."""

    def is_ready(self) -> bool:
        """Whether it does its work."""

    def restart(self) -> None:
        """Start it again."""


class Keeper:
    """Keeps one part running; `tick` it a few times a second."""

    def __init__(
        self, name: str, part: Part, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name, self._part, self._say, self._clock = name, part, say, clock
        self._deaths = 0
        self._restart_at: float | None = None
        self._started_at = clock()
        self._is_back = True

    def tick(self) -> None:
        """Look once; raises `EmbeddedError` when the part died too often."""
        now = self._clock()
        if self._restart_at is not None:
            if now >= self._restart_at:
                self._restart(now)
        elif not self._part.process.is_running():
            self._plan_restart(now, self._part.process.describe_exit())
        elif not self._is_back and self._part.is_ready():
            self._is_back = True
            self._say(f"{self._name} runs again.")
        elif self._is_back and now - self._started_at > _STEADY_AFTER_S:
            self._deaths = 0

    def _plan_restart(self, now: float, what_happened: str) -> None:
        self._deaths += 1
        if self._deaths > MAX_DEATHS:
            raise EmbeddedError(
                f"{self._name} {what_happened} for the {self._deaths}th time; its last words were: "
                f"{self._part.process.last_log_line() or 'none'} (all of them are in {self._part.process.log})."
            )
        delay_s = min(_FIRST_DELAY_S * 2 ** (self._deaths - 1), _MAX_DELAY_S)
        self._is_back = False
        self._restart_at = now + delay_s
        self._say(f"{self._name} {what_happened}; starting it again in {delay_s:.0f} s.")

    def _restart(self, now: float) -> None:
        self._restart_at, self._started_at = None, now
        try:
            self._part.restart()
        except EmbeddedError as error:
            self._plan_restart(now, f"did not start ({str(error).rstrip('.')})")


def supervise(system: EmbeddedSystem, say: Callable[[str], None], on_poll: Callable[[], None]) -> None:
    """Watch over Valkey and the worker until ``on_poll`` raises, or one of them cannot be kept running."""
    keepers = [Keeper("Valkey", system.valkey, say), Keeper("the worker", system.worker, say)]
    while True:
        on_poll()
        for keeper in keepers:
            keeper.tick()
        for process in (system.valkey.process, system.worker.process):
            keep_log_short(process)
        time.sleep(_POLL_INTERVAL_S)


def keep_log_short(process: ChildProcess, max_bytes: int = _MAX_LOG_BYTES) -> None:
    """Move a log that has grown beyond ``max_bytes`` aside; the child appends, so it goes on at the start."""
    if process.log.exists() and process.log.stat().st_size > max_bytes:
        shutil.copyfile(process.log, process.log.with_suffix(".1.log"))
        with process.log.open("r+b") as file:
            file.truncate(0)
