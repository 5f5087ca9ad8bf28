"""Detects a stuck event loop, device or job, since Celery's thread pool enforces no time limits."""

from __future__ import annotations

import time
from collections.abc import Callable

from worker.delivery.times import Times


class Liveness:
    """Watches the event loop, the device and the running jobs.

    Args:
        device_busy_s: returns the seconds that the oldest running batch has taken so far.
        device_limit_s: seconds after which a running batch counts as stuck.
        overdue: returns the ids of jobs that still run the given number of seconds after their deadline.
        waits: returns what this process waits for before it can take or answer jobs, as a clause, or None.
        times: how long the event loop, a batch and an overdue job may take before they count as slow or stuck.
    """

    def __init__(
        self,
        *,
        device_busy_s: Callable[[], float],
        device_limit_s: float,
        overdue: Callable[[float], list[str]],
        waits: Callable[[], str | None],
        times: Times,
    ) -> None:
        self._device_busy_s = device_busy_s
        self._device_limit_s = device_limit_s
        self._tick: float | None = None
        self._overdue = overdue
        self._waits = waits
        self._times = times

    def tick(self) -> None:
        """Record that the event loop is running."""
        self._tick = time.monotonic()

    def pause(self) -> None:
        """Stop watching the event loop until its next tick, since it may block on the broker or is ending."""
        self._tick = None

    def unhealthy_reason(self) -> str | None:
        """Return what is stuck, as a clause; None while the process is healthy."""
        tick = self._tick
        if tick is not None and (silent_s := time.monotonic() - tick) > self._times.loop_silent_s:
            return f"the event loop has not moved for {silent_s:.0f} s"
        if (busy_s := self._device_busy_s()) > self._device_limit_s:
            return f"the device has been busy with one batch for {busy_s:.0f} s"
        if overdue := self.overdue():
            return f"{len(overdue)} jobs hang"
        return None

    def warning(self) -> str | None:
        """Return what is stuck, what this process waits for, or that a batch takes long; None if nothing is wrong."""
        if found := self.unhealthy_reason() or self._waits():
            return found
        busy_s = self._device_busy_s()
        is_long = busy_s > self._times.long_batch_s
        return f"its device has been busy with one batch for {busy_s:.0f} s" if is_long else None

    def overdue(self) -> list[str]:
        """Return the ids of the jobs that hang."""
        return self._overdue(self._times.overdue_s)
