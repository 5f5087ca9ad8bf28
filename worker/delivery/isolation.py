"""Many jobs side by side, or one alone.

A process that dies takes dozens of jobs with it, and any of them may have done it. So each of them runs alone the next
time: if the process dies again, its only job did it; if not, the job is innocent.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from worker.cancel_scope import CancelScope


class Isolation:
    """A lock that is shared by ordinary jobs and exclusive for suspects; suspects go first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._together = 0
        self._suspects_waiting = 0
        self._alone = False

    @property
    def somebody_waits_to_be_alone(self) -> bool:
        """Whether ordinary jobs are being held back for a suspect."""
        return self._suspects_waiting > 0

    @contextmanager
    def together(self, scope: CancelScope) -> Iterator[None]:
        """Run beside others, once no suspect runs or waits; raises `Cancelled` when the scope is cancelled before."""
        scope.on_cancel(self._notify)
        with self._changed:
            self._changed.wait_for(lambda: scope.is_over or not (self._alone or self._suspects_waiting))
            scope.check()
            self._together += 1
        try:
            yield
        finally:
            with self._changed:
                self._together -= 1
            self._notify()

    @contextmanager
    def alone(self, scope: CancelScope) -> Iterator[None]:
        """Run once all others have finished, with nobody beside; raises `Cancelled` as `together` does."""
        scope.on_cancel(self._notify)
        with self._changed:
            self._suspects_waiting += 1
            self._changed.wait_for(lambda: scope.is_over or not (self._alone or self._together))
            self._suspects_waiting -= 1
            self._changed.notify_all()  # others wait for suspects that wait, too
            scope.check()
            self._alone = True
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
            self._notify()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()
