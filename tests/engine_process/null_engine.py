"""An engine process with a model that does what it is told: ``python -m tests.engine_process.null_engine SOCKET …``.

Environment:
    NULL_LOST: a file; the forward pass that finds it takes it away and finds its device gone.
    NULL_HANG: a file; while it exists, every forward pass hangs.
    NULL_DEVICE: what the model says that it runs on.
    NULL_PARALLEL: batches that run at once.
    NULL_TRACE: a file; the size of each batch is added to it, a line each.
"""

import ctypes
import os
import signal
import sys
import time
import timeit
from collections.abc import Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

from tests.chaos.null_model import NullModel
from tests.engine_process.kept_engine import FROZEN_S
from worker.engine_process.main import main
from worker.model.interface import DeviceLostError, Float32, Prepared

#: An image whose first byte is this ends the process, as a fault in a native library would.
POISON = 13
#: One whose first byte is this breaks the device: its batch and all later ones fail, as after an illegal address.
BREAKS = 14
#: One whose first byte is this freezes the process, as the kernel does where a driver hangs in it.
FREEZES = 15
#: One whose first byte is this hangs in native code with Python's lock held.
HOLDS_THE_LOCK = 16
#: One whose first byte is this computes in native code with Python's lock held, for longer than a frozen one may.
COMPUTES = 17
#: A prompt that breaks the device.
BREAKING_PROMPT = "a label that breaks the device"
#: Zeros that take milliseconds to add up.
PROBE = 1_000_000
#: Into a forward pass, so that another one has begun beside it; less than a forward pass takes.
DEATH_S = 0.01


class FragileModel(NullModel):
    """Dies of some images, and finds its device broken by others."""

    def embed_images(self, batch: Sequence[Prepared], parallel: int = 1) -> Float32:
        with Path(os.environ["NULL_TRACE"]).open("a") as trace:
            trace.write(f"{len(batch)}\n")
        firsts = [int(image.arrays["pixels"][0, 0, 0]) for image in batch]
        if POISON in firsts:
            time.sleep(DEATH_S)
            os._exit(1)
        if FREEZES in firsts:
            os.kill(os.getpid(), signal.SIGSTOP)
        if HOLDS_THE_LOCK in firsts:
            ctypes.PyDLL(None).pause()
        if COMPUTES in firsts:
            _compute(1.5 * FROZEN_S)
        lost = Path(os.environ["NULL_LOST"])
        if lost.exists():
            lost.unlink()
            raise DeviceLostError("gone")
        self._is_lost |= BREAKS in firsts
        return super().embed_images(batch, parallel)

    def embed_texts(self, prompts: Sequence[str], parallel: int = 1) -> Float32:
        self._is_lost |= BREAKING_PROMPT in prompts
        return super().embed_texts(prompts, parallel)


def _compute(seconds: float) -> None:
    """Add up zeros in one call of native code, which never lets go of Python's lock."""
    # The quickest of several: another process may have had the core during one, and this must take no less than asked.
    quickest_s = min(timeit.repeat(lambda: sum(repeat(0, PROBE)), number=1, repeat=5))
    sum(repeat(0, int(PROBE * seconds / quickest_s)))


def load(_model: str, **_: Any) -> NullModel:
    model = FragileModel(forward_ms=20, hangs=Path(os.environ["NULL_HANG"]).exists)
    model.device = os.environ["NULL_DEVICE"]
    model.parallel_batches = int(os.environ["NULL_PARALLEL"])
    return model


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:], load))
