"""How much one worker process takes on at a time: batch size, images in flight, decoders, memory for decoding."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from PIL import Image

from worker.model.interface import Model, ModelOutOfMemoryError

logger = logging.getLogger(__name__)

#: A batch should not hold the device longer than this. Three batches are in flight, so that a job has its turn well
#: within its default 60 s; and a machine that is busy while the worker starts does not make its batches small.
BATCH_BUDGET_S: Final = 8.0
#: ViT-B/32 on a core is as fast with 8 images as with 16, and beside a decoding thread faster. Below 4 the matrices
#: are too small, and one slow measurement at start should not condemn a worker to single images.
CPU_BATCHES: Final = (4, 8)
#: Beyond 64 a GPU gains little, and three times as many threads start to contend in one process.
GPU_BATCHES: Final = (16, 64)
#: A smaller batch that gives so much of the best rate is the better one: it answers sooner.
GPU_RATE_SHARE: Final = 0.95
#: The quickest of so many measurements counts: other programs only ever make one slower.
MEASUREMENTS: Final = 3
#: A bulk message has this many times the time of a single job.
BULK_TIME_FACTOR: Final = 2
#: For each batch on the device one ready, and one being downloaded.
IMAGES_PER_BATCH_SLOT: Final = 3
MIN_CONCURRENCY: Final = 4
#: Each holds 20 MB of its own when idle; beyond these a model on one device is slower than they are.
MAX_DECODERS: Final = 32
#: Memory in which images are decoded and prepared, in bytes per pixel that one image may have: 36 × 50,000,000 are
#: 1.8 GB, for two WebP, three JPEG or four PNG files of the largest size at once.
DECODING_BYTES_PER_PIXEL: Final = 36


def measured_max_batch(model: Model) -> int:
    """The batch size for this model on this device: a power of two, from the time one image takes."""
    prepared = model.prepare(Image.new("RGB", (256, 256)))
    quickest_s = min(_timed(lambda: model.embed_images([prepared])) for _ in range(MEASUREMENTS))
    least, most = CPU_BATCHES if model.device == "cpu" else GPU_BATCHES
    affordable = max(least, min(most, int(BATCH_BUDGET_S / quickest_s)))
    return 1 << (affordable.bit_length() - 1)


def rehearsed_max_batch(model: Model, wanted: int | None, prompts: int) -> int:
    """The batch size for a GPU, once every power of two up to it has run; from the thread that will run jobs.

    A GPU's libraries choose kernels, and take memory, at the first batch of a size, for each thread anew: no job is to
    wait for that, nor to be the first that finds out what does not fit.

    Args:
        wanted: instead of the size that is fastest; less is taken where that does not fit.
        prompts: the most that are embedded at a time.

    Raises:
        ModelError: as `Model.embed_images`, but for a lack of memory.
    """
    for count in (1, prompts):
        model.embed_texts(["a photo"] * count)
    prepared = model.prepare(Image.new("RGB", (256, 256)))
    least, most = GPU_BATCHES
    sizes = [1 << power for power in range((wanted or most).bit_length())]
    seconds: dict[int, float] = {}
    for size in sorted({*sizes, wanted or most}):
        try:
            run = partial(model.embed_images, [prepared] * size)
            seconds[size] = min(_timed(run) for _ in range(MEASUREMENTS))
        except ModelOutOfMemoryError:
            fits = max(seconds, default=1)
            logger.warning("batches of %d do not fit into the memory of %s: at most %d", size, model.device, fits)
            break
    if wanted or not seconds:
        return max(seconds, default=1)
    fast_enough = GPU_RATE_SHARE * max(size / taken for size, taken in seconds.items())
    for size, taken in seconds.items():
        if size >= least and (size / taken >= fast_enough or 2 * taken > BATCH_BUDGET_S):
            return size
    return max(seconds)


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def default_concurrency(max_batch: int, parallel_batches: int, processes: int = 1) -> int:
    """Images in flight in each process, when so many together keep so many batches of this size filled."""
    return max(MIN_CONCURRENCY, -(-IMAGES_PER_BATCH_SLOT * max_batch * parallel_batches // processes))


def decoder_processes(concurrency: int, processes: int = 1) -> int:
    """How many decoders each of so many processes may have: one for each core that is theirs together."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(-(-cores // processes), concurrency, MAX_DECODERS))
