"""Chooses the sizes of one worker process: batches, images in flight, decoder processes, memory for decoding."""

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

#: A batch should not take longer than this. With three batches in flight, an image is then done well within the default
#: 60 s of its job, and a worker that starts on a busy machine still chooses batches of a useful size.
BATCH_BUDGET_S: Final = 8.0
#: The smallest and the largest batch on a CPU. On one core, ViT-B/32 computes as many images per second in batches of 8
#: as in batches of 16, and more while another thread decodes. With fewer than 4 images, the matrices are too small to
#: compute efficiently; and one slow measurement at start should not leave a worker with single images.
CPU_BATCHES: Final = (4, 8)
#: The smallest and the largest batch on a GPU. Beyond 64 images a GPU gains little, and the worker's threads, one per
#: image in flight and thus three times as many as a batch has images, begin to contend for Python's global lock.
GPU_BATCHES: Final = (16, 64)
#: A smaller batch that reaches this share of the best rate is preferred, because it ends sooner.
GPU_RATE_SHARE: Final = 0.95
#: The shortest of this many measurements counts, because other programs can only lengthen one.
MEASUREMENTS: Final = 3
#: Each image of a bulk message has this many times the timeout of a single job.
BULK_TIME_FACTOR: Final = 2
#: While one batch is on the device, a second is ready and a third is being downloaded.
IMAGES_PER_BATCH_SLOT: Final = 3
MIN_CONCURRENCY: Final = 4
#: An idle decoder uses 20 MB, and this many decoders are faster than the model on one device.
MAX_DECODERS: Final = 32
#: Memory for decoding and preparing all images, in bytes per pixel that one image may have: 36 × 50,000,000 is 1.8 GB,
#: enough to decode two WebP, three JPEG or four PNG files of the largest size at once.
DECODING_BYTES_PER_PIXEL: Final = 36


def measured_max_batch(model: Model) -> int:
    """Return the batch size for this model on this device, a power of two, from the time that one image takes."""
    prepared = model.prepare(Image.new("RGB", (256, 256)))
    quickest_s = min(_timed(lambda: model.embed_images([prepared])) for _ in range(MEASUREMENTS))
    least, most = CPU_BATCHES if model.device == "cpu" else GPU_BATCHES
    affordable = max(least, min(most, int(BATCH_BUDGET_S / quickest_s)))
    return 1 << (affordable.bit_length() - 1)


def rehearsed_max_batch(model: Model, wanted: int | None, prompts: int) -> int:
    """Return the batch size for a GPU, after running batches of each power of two up to the largest size.

    Call it in the device's thread: when a thread first runs a batch of some size, a GPU's libraries choose kernels and
    allocate memory. Because that happens here, no job waits for it, and no job is the first to run out of memory.

    Args:
        wanted: the size to return instead of the measured one; if it does not fit, the largest that ran is returned.
        prompts: the largest number of prompts in one batch.

    Raises:
        ModelError: as `Model.embed_images`, except that a size that does not fit raises no error.
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
            logger.warning("batches of %d do not fit into the memory of %s: using at most %d", size, model.device, fits)
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
    """Return how many images in flight each process needs so that together they fill all batches at once.

    Args:
        max_batch: the number of images in a full batch.
        parallel_batches: the number of batches that the device runs at once.
        processes: the number of processes that share the device.
    """
    return max(MIN_CONCURRENCY, -(-IMAGES_PER_BATCH_SLOT * max_batch * parallel_batches // processes))


def decoder_processes(concurrency: int, processes: int = 1) -> int:
    """Return how many decoders each of ``processes`` processes may have: its share of the usable cores, or fewer."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(-(-cores // processes), concurrency, MAX_DECODERS))
