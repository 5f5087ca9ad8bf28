"""Turn the signals that end a program into one exception in the main thread, so that `finally` blocks run."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from types import FrameType
from typing import Final

#: Ctrl-C in a terminal can arrive twice at once (from the terminal and from make); later ones are impatience.
_SAME_PRESS_S: Final = 0.5
_HANDLED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """The program was asked to end by ``signal_number``."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


class RaisedSignals:
    """What was asked so far."""

    def __init__(self) -> None:
        self._first: int | None = None
        self._first_at_s = 0.0

    def raise_if_stopped(self) -> None:
        """Raise `Stopped` again where the first one was swallowed (in a destructor or callback, say)."""
        if self._first is not None:
            raise Stopped(self._first)

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """The signal handler: the first raises, an impatient second ends this process at once.

        The children then end too: they are on a leash.
        """
        if self._first is None:
            self._first, self._first_at_s = number, time.monotonic()
            raise Stopped(number)
        if time.monotonic() - self._first_at_s > _SAME_PRESS_S:
            os._exit(128 + number)


@contextlib.contextmanager
def raised_signals() -> Iterator[RaisedSignals]:
    """Handle SIGINT, SIGTERM and SIGHUP for the length of a ``with`` block in the main thread."""
    signals = RaisedSignals()
    before = {number: signal.getsignal(number) for number in _HANDLED}
    for number in _HANDLED:
        # Under nohup SIGHUP is ignored, and stays so.
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, signals.handle)
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
