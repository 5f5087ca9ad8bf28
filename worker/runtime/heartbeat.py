"""Heartbeats: an engine sends one each second through a pipe, and the launcher kills an engine that sends none.

A thread sends the heartbeats, so neither a long forward pass nor a model that loads delays them, as long as torch
releases the GIL. If an engine computes with the GIL held, the launcher sees that the engine uses CPU time.
`worker.engine_process.main` handles a forward pass that has released the GIL and never ends.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from producer.processes.kernel_status import cpu_s

BEAT_S: Final = 1.0
#: A loaded engine that sends no heartbeat and uses no CPU for this long counts as frozen. If one image freezes two
#: engines in turn, the other jobs still have half of their 60 s. Even a busy machine delays no thread for so long.
FROZEN_S: Final = 15.0
#: An engine that loads its model may be silent for this long, because it imports libraries with the GIL held, from a
#: disk that may be slow.
LOADING_S: Final = 600.0
#: A silent engine that uses at least this share of a CPU counts as working; the threads of an idle engine use 0.01.
_WORKS: Final = 0.05
#: At most this much time counts between two checks, because after a longer time the launcher itself was frozen or the
#: machine was suspended.
_LONGEST_STEP_S: Final = 1.0
_LOADING, _READY = b"l", b"r"
#: A pipe's capacity on Linux.
_PIPE_BYTES: Final = 1 << 16


class HeartbeatSender:
    """Sends an engine's heartbeats.

    Args:
        descriptor: the pipe's descriptor; None if no launcher started this engine.
    """

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor, self._byte = descriptor, _LOADING
        if descriptor is not None:
            os.set_blocking(descriptor, False)
            os.set_inheritable(descriptor, False)
            threading.Thread(target=self._serve, name="heartbeat", daemon=True).start()

    def has_loaded(self) -> None:
        """Send the launcher a heartbeat which says that the model is loaded, so that its shorter time limits apply."""
        self._byte = _READY
        self._beat()

    def _serve(self) -> None:
        while True:
            self._beat()
            time.sleep(BEAT_S)

    def _beat(self) -> None:
        # The pipe is full if the launcher is frozen, and closed if the launcher has ended.
        with suppress(OSError):
            if self._descriptor is not None:
                os.write(self._descriptor, self._byte)


class HeartbeatMonitor:
    """Reads the heartbeats of one engine process and its successors; call `frozen_reason` a few times a second.

    Args:
        limit_s: the longest allowed silence of an engine that uses CPU.
        frozen_s: the longest allowed silence of an engine that uses none.
        clock: a monotonic clock, in seconds.
        cpu_s: returns the CPU seconds that a process has used; None if they are unknown.
    """

    def __init__(
        self,
        limit_s: float,
        *,
        frozen_s: float = FROZEN_S,
        clock: Callable[[], float] = time.monotonic,
        cpu_s: Callable[[int], float | None] = cpu_s,
    ) -> None:
        self._limit_s, self._frozen_s, self._clock = limit_s, frozen_s, clock
        self._cpu_s = cpu_s
        self._descriptor: int | None = None
        self._has_loaded = False
        self._silent_s = self._cpu_then_s = 0.0
        self._checked_s = clock()

    @contextmanager
    def monitor_next(self) -> Iterator[int]:
        """Yield a descriptor for the next process, which must start within this context, and read its heartbeats."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor, theirs = os.pipe()
        os.set_blocking(self._descriptor, False)
        try:
            yield theirs
        finally:
            os.close(theirs)
        self._has_loaded = False
        self._silent_s = self._cpu_then_s = 0.0
        self._checked_s = self._clock()

    def frozen_reason(self, pid: int) -> str | None:
        """Return why the process counts as frozen, as a clause to follow its name; None if it does not.

        After a reason the measured silence restarts at 0, so a process that the kernel cannot kill is reported again.
        """
        now_s = self._clock()
        self._silent_s += min(now_s - self._checked_s, _LONGEST_STEP_S)
        self._checked_s = now_s
        if received := self._received():
            self._has_loaded = received[-1:] == _READY
            self._silent_s, self._cpu_then_s = 0.0, self._cpu_s(pid) or 0.0
            return None
        if self._silent_s <= (self._frozen_s if self._has_loaded else LOADING_S):
            return None
        works = (self._cpu_s(pid) or 0.0) - self._cpu_then_s > _WORKS * self._silent_s
        if works and self._silent_s <= self._limit_s:
            return None
        silent_s, self._silent_s = self._silent_s, 0.0
        return f"has sent no heartbeat for {silent_s:.0f} s"

    def _received(self) -> bytes:
        with suppress(BlockingIOError):
            if self._descriptor is not None:
                return os.read(self._descriptor, _PIPE_BYTES)
        return b""
