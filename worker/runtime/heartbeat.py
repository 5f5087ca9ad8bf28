"""Heartbeats: an engine sends one each second through a pipe, and the launcher kills an engine that stops.

A thread of its own sends them, so a long forward pass or a loading model does not delay them while it releases the GIL,
as torch does. The launcher recognises an engine that computes with the GIL held by its CPU time.
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
#: A loaded engine that is silent and uses no CPU for this long is frozen. An image that freezes two engines leaves its
#: neighbours half of their 60 s, and even a busy machine does not delay a thread for so long.
FROZEN_S: Final = 15.0
#: A loading engine may be silent for this long: it imports libraries from a disk that may be slow, with the GIL held.
LOADING_S: Final = 600.0
#: A silent engine that uses this share of a CPU works; the threads of a sleeping one use a hundredth.
_WORKS: Final = 0.05
#: If more time lies between two checks, the launcher itself was frozen or its machine asleep, so only this much counts.
_LONGEST_LOOK_S: Final = 1.0
_LOADING, _READY = b"l", b"r"
#: A pipe's capacity on Linux.
_PIPE_BYTES: Final = 1 << 16


class Heart:
    """The engine's side, which sends heartbeats.

    Args:
        descriptor: the pipe's; None without a launcher.
    """

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor, self._word = descriptor, _LOADING
        if descriptor is not None:
            os.set_blocking(descriptor, False)
            os.set_inheritable(descriptor, False)
            threading.Thread(target=self._serve, name="heartbeat", daemon=True).start()

    def has_loaded(self) -> None:
        """Tell the launcher that the model is loaded: from now on silence means that this process is frozen."""
        self._word = _READY
        self._beat()

    def _serve(self) -> None:
        while True:
            self._beat()
            time.sleep(BEAT_S)

    def _beat(self) -> None:
        # The pipe may be full because the launcher is frozen, or closed because it has ended.
        with suppress(OSError):
            if self._descriptor is not None:
                os.write(self._descriptor, self._word)


class SignsOfLife:
    """The launcher's side, for one engine process after another; call `frozen_reason` a few times a second.

    Args:
        limit_s: the longest silence of an engine that uses CPU.
        frozen_s: the longest silence of an engine that uses none.
        clock: a monotonic clock, in seconds.
        cpu_s: returns the CPU seconds that a process has used.
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
        self._looked_s = clock()

    @contextmanager
    def of_the_next(self) -> Iterator[int]:
        """Yield a descriptor for the next process, to be started in this context, and listen to that process."""
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
        self._looked_s = self._clock()

    def frozen_reason(self, pid: int) -> str | None:
        """Return a clause that says that the process is frozen; None while it may not be.

        The measured silence then restarts, so a process that the kernel cannot end is reported again.
        """
        now_s = self._clock()
        self._silent_s += min(now_s - self._looked_s, _LONGEST_LOOK_S)
        self._looked_s = now_s
        if heard := self._heard():
            self._has_loaded = heard[-1:] == _READY
            self._silent_s, self._cpu_then_s = 0.0, self._cpu_s(pid) or 0.0
            return None
        if self._silent_s <= (self._frozen_s if self._has_loaded else LOADING_S):
            return None
        works = (self._cpu_s(pid) or 0.0) - self._cpu_then_s > _WORKS * self._silent_s
        if works and self._silent_s <= self._limit_s:
            return None
        silent_s, self._silent_s = self._silent_s, 0.0
        return f"has given no sign of life for {silent_s:.0f} s"

    def _heard(self) -> bytes:
        with suppress(BlockingIOError):
            if self._descriptor is not None:
                return os.read(self._descriptor, _PIPE_BYTES)
        return b""
