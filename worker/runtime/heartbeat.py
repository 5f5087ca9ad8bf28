"""Signs of life: an engine gives one each second through a pipe, and its launcher kills one that gives no more.

They come from a thread of their own, so that neither a long forward pass nor a model that loads keeps them back while
it lets go of Python's lock, as torch does. What keeps the lock and computes is known by its CPU time. A pass that never
ends and has let go of the lock is the business of `worker.engine_process.main`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from producer.processes.cpu_time import cpu_s

BEAT_S: Final = 1.0
#: Of an engine that has its model and uses no CPU. An image that freezes two engines leaves its neighbours half of
#: their 60 s; and a busy machine keeps no thread waiting for so long.
FROZEN_S: Final = 15.0
#: Of one that still loads: the libraries come from a disk that may be slow, with Python's lock held.
LOADING_S: Final = 600.0
#: Of the time that it is silent, CPU seconds of one that works; the threads of one that sleeps take a hundredth.
_WORKS: Final = 0.05
#: Between two looks the launcher itself was frozen, or its machine asleep, if more has gone by: it was as deaf as the
#: engine was dumb.
_LONGEST_LOOK_S: Final = 1.0
_LOADING, _READY = b"l", b"r"
#: What a pipe holds.
_PIPE_BYTES: Final = 1 << 16


class Heart:
    """The engine's side.

    Args:
        descriptor: the pipe's; None: no launcher listens.
    """

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor, self._word = descriptor, _LOADING
        if descriptor is not None:
            os.set_blocking(descriptor, False)
            os.set_inheritable(descriptor, False)
            threading.Thread(target=self._serve, name="heartbeat", daemon=True).start()

    def has_loaded(self) -> None:
        """From now on silence means that this process is frozen."""
        self._word = _READY
        self._beat()

    def _serve(self) -> None:
        while True:
            self._beat()
            time.sleep(BEAT_S)

    def _beat(self) -> None:
        # The launcher may have been frozen until the pipe is full, or have ended.
        with suppress(OSError):
            if self._descriptor is not None:
                os.write(self._descriptor, self._word)


class SignsOfLife:
    """The launcher's side, for one engine process after another; look at it a few times a second.

    Args:
        limit_s: of silence of one that uses CPU.
        frozen_s: of silence of one that uses none.
        clock: seconds.
        cpu_s: CPU seconds that a process has used.
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
        """Start a process in here that inherits this descriptor; what is heard is its own from then on."""
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
        """That it is frozen, as the second half of a sentence; None while it may not be.

        What has complained begins anew: a process that the kernel cannot end is complained of again.
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
