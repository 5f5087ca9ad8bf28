"""Whether this process still does its work: a pool of threads has no time limits, so somebody has to look."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

#: The event loop ticks each second. Silent for this long, it is stuck, and so is every acknowledgement.
LOOP_SILENT_S: Final = 15.0
#: A job watches its own deadline; one that is still running so long after it hangs where it cannot look.
OVERDUE_S: Final = 10.0
#: No batch takes so long on a device that works.
LONG_BATCH_S: Final = 10.0


class Liveness:
    """Watches the event loop, the device and the running jobs.

    Args:
        device_busy_s: how long the oldest running batch has taken so far.
        device_limit_s: a batch that takes longer never ends.
        overdue: ids of the jobs that still run so many seconds after their deadline.
        waits: what this process waits for before it can take or answer jobs, in a few words; None when for nothing.
    """

    def __init__(
        self,
        *,
        device_busy_s: Callable[[], float],
        device_limit_s: float,
        overdue: Callable[[float], list[str]],
        waits: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._device_busy_s = device_busy_s
        self._device_limit_s = device_limit_s
        self._tick: float | None = None
        self._overdue = overdue
        self._waits = waits

    def tick(self) -> None:
        """The event loop runs."""
        self._tick = time.monotonic()

    def pause(self) -> None:
        """The event loop waits for the broker to come back, or ends: silence means nothing until it ticks again."""
        self._tick = None

    def unhealthy_reason(self) -> str | None:
        """What is stuck, in a few words; None while all is well."""
        tick = self._tick
        if tick is not None and (silent_s := time.monotonic() - tick) > LOOP_SILENT_S:
            return f"the event loop has not moved for {silent_s:.0f} s"
        if (busy_s := self._device_busy_s()) > self._device_limit_s:
            return f"the device has been busy with one batch for {busy_s:.0f} s"
        if overdue := self.overdue():
            return f"{len(overdue)} jobs hang"
        return None

    def warning(self) -> str | None:
        """The unhealthy_reason, or what may become one, or what keeps this process from its work."""
        if found := self.unhealthy_reason() or self._waits():
            return found
        busy_s = self._device_busy_s()
        return f"its device has been busy with one batch for {busy_s:.0f} s" if busy_s > LONG_BATCH_S else None

    def overdue(self) -> list[str]:
        """Ids of the jobs that hang."""
        return self._overdue(OVERDUE_S)
