"""An engine process whose model fails on request: ``python -m tests.engine_process.null_engine SOCKET …``.

Environment:
    NULL_LOST: a file; if it exists, the next forward pass deletes it and raises `DeviceLostError`.
    NULL_HANG: a file; while it exists, every forward pass hangs.
    NULL_DEVICE: the device on which the model claims to run.
    NULL_PARALLEL: how many batches run at once.
    NULL_TRACE: a file; the engine appends a line with the size of each batch.
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

#: The first byte of an image that ends the process, as a fault in a native library would.
POISON = 13
#: The first byte of an image that breaks the device: its batch and all later ones fail, as after an illegal address.
BREAKS = 14
#: The first byte of an image that suspends the process, as if it were stuck inside a driver that hangs.
FREEZES = 15
#: The first byte of an image that hangs in native code while it holds Python's lock.
HOLDS_THE_LOCK = 16
#: The first byte of an image that computes in native code while it holds Python's lock, for longer than `FROZEN_S`.
COMPUTES = 17
#: A prompt that breaks the device.
BREAKING_PROMPT = "a label that breaks the device"
#: How many zeros Python adds up in some milliseconds.
PROBE = 1_000_000
#: How long a poisoned forward pass runs before it ends the process: less than a whole pass, but enough for another
#: pass to begin.
DEATH_S = 0.01


class FragileModel(NullModel):
    """A model that some images kill, freeze or delay, and whose device others break."""

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
    """Add up zeros in one call of native code, which never releases Python's lock."""
    # Use the fastest of several measurements, because another process may have slowed one down, and the computation
    # must not be shorter than ``seconds``.
    quickest_s = min(timeit.repeat(lambda: sum(repeat(0, PROBE)), number=1, repeat=5))
    sum(repeat(0, int(PROBE * seconds / quickest_s)))


def load(_model: str, **_: Any) -> NullModel:
    model = FragileModel(forward_ms=20, hangs=Path(os.environ["NULL_HANG"]).exists)
    model.device = os.environ["NULL_DEVICE"]
    model.parallel_batches = int(os.environ["NULL_PARALLEL"])
    return model


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:], load))
