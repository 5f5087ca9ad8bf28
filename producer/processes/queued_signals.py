"""Queue the signals that a launcher receives, so that its loop can wait for them."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from typing import Final

#: One request to stop can arrive twice at once: systemd signals every process of a service, and the launcher also
#: forwards the signal to its workers; Ctrl-C reaches a program from the terminal and from make. Copies of one request
#: arrive within this time; a person who asks twice takes longer.
SAME_REQUEST_S: Final = 0.5

_STOPPING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


class QueuedSignals:
    """Returns the signals that have arrived, in order."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def wait(self, timeout_s: float) -> list[signal.Signals]:
        """Wait for a signal or the end of a child, and return the signals since the last call."""
        if not select.select([self._pipe], [], [], timeout_s)[0]:
            return []
        return [signal.Signals(number) for number in os.read(self._pipe, 512) if number in _STOPPING]


@contextlib.contextmanager
def queued_signals() -> Iterator[QueuedSignals]:
    """Queue SIGTERM, SIGINT, SIGHUP and SIGQUIT during a ``with`` block in the main thread; ignore them afterwards.

    Signals only queue up here, so the launcher finishes starting a process and records it before it acts on a signal.
    """
    pipe, written = os.pipe()
    os.set_blocking(written, False)
    signal.set_wakeup_fd(written, warn_on_full_buffer=False)
    # A signal that was ignored before stays ignored: SIGHUP under nohup, SIGINT in a shell's background job.
    handled = [number for number in _STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
    for number in (*handled, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    try:
        yield QueuedSignals(pipe)
    finally:
        for number in handled:
            # The program ends now; another signal must not change its exit status.
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        os.close(pipe)
        os.close(written)
