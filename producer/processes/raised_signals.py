"""Turn the signals that end a program into one exception in the main thread, so that `finally` blocks run."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from types import FrameType
from typing import Final

from producer.processes.queued_signals import SAME_REQUEST_S

_HANDLED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """The program was asked to end by ``signal_number``."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


class RaisedSignals:
    """Raises `Stopped` at the first signal, and remembers that signal."""

    def __init__(self) -> None:
        self._first: int | None = None
        self._first_at_s = 0.0

    def raise_if_stopped(self) -> None:
        """Raise `Stopped` again if a signal has arrived, in case a destructor or a callback swallowed the first one."""
        if self._first is not None:
            raise Stopped(self._first)

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal: the first raises `Stopped`; a second one that is not a copy ends this process at once.

        The process's children then end too; see `producer.processes.leash`.
        """
        if self._first is None:
            self._first, self._first_at_s = number, time.monotonic()
            raise Stopped(number)
        if time.monotonic() - self._first_at_s > SAME_REQUEST_S:
            os._exit(128 + number)


@contextlib.contextmanager
def raised_signals() -> Iterator[RaisedSignals]:
    """Handle SIGINT, SIGTERM and SIGHUP during a ``with`` block in the main thread."""
    signals = RaisedSignals()
    before = {number: signal.getsignal(number) for number in _HANDLED}
    for number in _HANDLED:
        # A signal that was ignored before stays ignored, such as SIGHUP under nohup.
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, signals.handle)
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
