"""Keep a process running: restart it when it dies, with increasing delays."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Protocol

from producer.errors import NameshotError
from producer.processes.child import LeashedProcess

#: Short enough that no person notices the delay, and long enough to use almost no CPU.
POLL_INTERVAL_S: Final = 0.25
_STEADY_AFTER_S: Final = 60.0
_FIRST_DELAY_S: Final = 1.0
#: After minutes of failures (a driver, a disk), the next restart is at most five seconds away. If several jobs kill
#: workers, each delays the other jobs by at most five seconds.
_MAX_DELAY_S: Final = 5.0


class Supervised(Protocol):
    """A process that a `Supervisor` can keep running."""

    @property
    def process(self) -> LeashedProcess:
        """The current process, running or ended."""

    def restart(self) -> None:
        """Restart the process; a `NameshotError` or `OSError` counts as another death."""


class Supervisor:
    """Keeps one process running; call `tick` a few times a second.

    Args:
        name: the process's name in messages.
        part: the process, already running.
        say: called with a sentence for each death and each recovery.
        clock: returns seconds.
        is_ready: returns whether the process does its work; without it, the supervisor reports no recovery, because
            the process reports that itself.
        on_death: called before ``say`` with the number of deaths in a row and what happened; an exception from it
            ends the supervision.
    """

    def __init__(
        self,
        name: str,
        part: Supervised,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        *,
        is_ready: Callable[[], bool] | None = None,
        on_death: Callable[[int, str], None] = lambda _deaths, _what_happened: None,
    ) -> None:
        self._name, self._part, self._say, self._clock = name, part, say, clock
        self._is_ready, self._on_death = is_ready, on_death
        self._deaths = 0
        self._restart_at: float | None = None
        self._started_at = clock()
        self._is_back = True

    def tick(self) -> None:
        """Check the process once; raise what ``on_death`` raises."""
        now = self._clock()
        if self._restart_at is not None:
            if now >= self._restart_at:
                self._restart(now)
        elif not self._part.process.is_running():
            self._plan_restart(now, self._part.process.describe_exit())
        elif not self._is_back and self._is_ready is not None and self._is_ready():
            self._is_back = True
            self._say(f"{self._name} runs again.")
        elif self._is_back and now - self._started_at > _STEADY_AFTER_S:
            self._deaths = 0

    def _plan_restart(self, now: float, what_happened: str) -> None:
        self._deaths += 1
        self._on_death(self._deaths, what_happened)
        # The exponent has a limit, so that many deaths do not make the power huge.
        delay_s = min(_FIRST_DELAY_S * 2 ** min(self._deaths - 1, 10), _MAX_DELAY_S)
        self._is_back = self._is_ready is None
        self._restart_at = now + delay_s
        self._say(f"{self._name} {what_happened}; starting it again in {delay_s:.0f} s.")

    def _restart(self, now: float) -> None:
        self._restart_at, self._started_at = None, now
        try:
            self._part.restart()
        except (NameshotError, OSError) as error:
            self._plan_restart(now, f"did not start ({str(error).rstrip('.')})")
