"""How much one worker process takes on at a time: batch size, images in flight, decoded pixels in flight."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from PIL import Image

from producer.errors import JobFailed
from worker.model.interface import Model

#: A batch should not hold the device longer than this. Three batches are in flight, so that a job has its turn well
#: within its default 60 s; and a machine that is busy while the worker starts does not make its batches small.
BATCH_BUDGET_S: Final = 8.0
#: ViT-B/32 on a core is as fast with 8 images as with 16, and beside a decoding thread faster. Below 4 the matrices
#: are too small, and one slow measurement at start should not condemn a worker to single images.
CPU_BATCHES: Final = (4, 8)
#: Beyond 64 a GPU gains little, and three times as many threads start to contend in one process.
GPU_BATCHES: Final = (16, 64)
#: The quickest of so many measurements counts: other programs only ever make one slower.
MEASUREMENTS: Final = 3
#: For each batch on the device one ready, and one being downloaded.
IMAGES_PER_BATCH_SLOT: Final = 3
MIN_CONCURRENCY: Final = 4
#: Decoded images that may stand in memory together, as a multiple of the largest one allowed.
PIXEL_BUDGET_IMAGES: Final = 4


def measured_max_batch(model: Model) -> int:
    """The batch size for this model on this device: a power of two, from the time one image takes."""
    prepared = model.prepare(Image.new("RGB", (256, 256)))
    quickest_s = min(_timed(lambda: model.embed_images([prepared])) for _ in range(MEASUREMENTS))
    least, most = CPU_BATCHES if model.device == "cpu" else GPU_BATCHES
    affordable = max(least, min(most, int(BATCH_BUDGET_S / quickest_s)))
    return 1 << (affordable.bit_length() - 1)


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def default_concurrency(max_batch: int, parallel_batches: int) -> int:
    """Images in flight that keep so many batches of this size filled."""
    return max(MIN_CONCURRENCY, IMAGES_PER_BATCH_SLOT * max_batch * parallel_batches)


class PixelBudget:
    """A bound on the decoded pixels that stand in memory at once, whatever mixture of images arrives."""

    def __init__(self, max_pixels: int) -> None:
        self._left = max_pixels
        self._max = max_pixels
        self._freed = threading.Condition()

    @contextmanager
    def reserve(self, pixels: int, deadline: float) -> Iterator[None]:
        """Hold room for one image, waiting for it until the deadline on `time.monotonic`'s clock.

        Raises:
            JobFailed: ``deadline_exceeded``.
        """
        pixels = min(pixels, self._max)
        with self._freed:
            if not self._freed.wait_for(lambda: self._left >= pixels, max(0.0, deadline - time.monotonic())):
                raise JobFailed("deadline_exceeded", "no memory for decoding came free within the job's time.")
            self._left -= pixels
        try:
            yield
        finally:
            with self._freed:
                self._left += pixels
                self._freed.notify_all()
