"""An engine process with a model that does what it is told: ``python -m tests.engine_process.null_engine SOCKET``.

Environment:
    NULL_LOST: a file; the forward pass that finds it takes it away and finds its device gone.
    NULL_HANG: a file; while it exists, every forward pass hangs.
    NULL_PARALLEL: batches that run at once.
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.chaos.null_model import NullModel
from worker.engine_process.process import run
from worker.model import DeviceLostError, Prepared
from worker.model.interface import Float32

#: An image whose first byte is this ends the process, as a fault in a native library would.
POISON = 13
#: Into a forward pass, so that another one has begun beside it; less than a forward pass takes.
DEATH_S = 0.01


class FragileModel(NullModel):
    """Dies of some images."""

    def embed_images(self, batch: Sequence[Prepared], parallel: int = 1) -> Float32:
        if any(image.arrays["pixels"][0, 0, 0] == POISON for image in batch):
            time.sleep(DEATH_S)
            os._exit(1)
        lost = Path(os.environ["NULL_LOST"])
        if lost.exists():
            lost.unlink()
            raise DeviceLostError("gone")
        return super().embed_images(batch, parallel)


def load(_model: str, **_: Any) -> NullModel:
    model = FragileModel(forward_ms=20, hangs=Path(os.environ["NULL_HANG"]).exists)
    model.parallel_batches = int(os.environ["NULL_PARALLEL"])
    return model


if __name__ == "__main__":
    raise SystemExit(run(Path(sys.argv[1]), load))
