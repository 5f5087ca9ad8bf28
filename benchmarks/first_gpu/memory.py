"""Tests a batch that does not fit: smaller batches must answer all images, and the memory must be free afterwards.

On a GPU the test runs twice: once with a limit for PyTorch's own allocator, and once while another process holds nearly
all memory, so that the driver itself refuses. On a CPU the model only raises the error, which proves nothing but that
this program runs.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from typing import Any, Final, cast

from PIL import Image

from benchmarks.first_gpu.given import Given
from benchmarks.first_gpu.notes import Notes
from benchmarks.fronts import different
from worker.engine.local import LocalEngine
from worker.model import Model, load_model
from worker.model.interface import Float32, ModelOutOfMemoryError, Prepared

ANSWER_S: Final = 60.0
#: A program that allocates all free memory but this many bytes, prints a line, and holds it until its input ends.
_HOG: Final = """
import sys, torch
keep = int(sys.argv[2])
free, _ = torch.cuda.mem_get_info(sys.argv[1])
taken = torch.empty(max(0, free - keep), dtype=torch.uint8, device=sys.argv[1])
print("taken", flush=True)
sys.stdin.read()
"""


class _Small:
    """A model on the CPU that raises an error for batches larger than ``fits``."""

    def __init__(self, model: Model, fits: int) -> None:
        self._model, self._fits = model, fits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def embed_images(self, batch: Sequence[Prepared], parallel: int = 1) -> Float32:
        if len(batch) > self._fits:
            raise ModelOutOfMemoryError("the batch does not fit")
        return self._model.embed_images(batch, parallel)


def run(given: Given, notes: Notes) -> None:
    """Run the test with the largest model."""
    import torch

    size = 16 if given.quick else 256
    fits = size * 2 // 5
    model = load_model(str(given.checkpoint(given.models[-1])), device=given.device)
    model.warm_up()
    images = different(model.prepare(Image.new("RGB", (640, 480))).arrays["pixels"].shape)[:size]
    if not given.on_gpu:
        _answered(cast(Model, _Small(model, fits)), images, "on the CPU", notes)
        return
    weights = torch.cuda.memory_allocated(given.device)
    needed = _peak_bytes(model, images[:fits], given.device)
    total = torch.cuda.get_device_properties(given.device).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(needed / total, given.device)
    _answered(model, images, "PyTorch's allocator is limited", notes)
    torch.cuda.set_per_process_memory_fraction(1.0, given.device)
    _given_back(weights, given.device, "PyTorch's allocator is limited", notes)
    torch.cuda.empty_cache()
    with _hog(given.device, needed - weights, notes):
        _answered(model, images, "another process has the memory", notes)
    _given_back(weights, given.device, "another process has the memory", notes)


def _answered(model: Model, images: Sequence[Prepared], why: str, notes: Notes) -> None:
    engine = LocalEngine(model, max_batch=len(images), max_wait_s=1.0, on_device_lost=lambda: None)
    futures = [engine.queue_image(image, "default") for image in images]
    wait(futures, ANSWER_S)
    answered = [future.result() for future in futures if future.done() and future.exception() is None]
    sizes = sorted({ride.batch_size for ride in answered}, reverse=True)
    notes.figure(why, {"asked": len(images), "answered": len(answered), "batches": sizes, "after": engine.batch_limit})
    notes.check(f"{why}: all are answered", len(answered) == len(images), f"{len(answered)} of {len(images)}")
    notes.check(f"{why}: no single images", 1 < engine.batch_limit < len(images), f"at most {engine.batch_limit}")
    notes.line(f"{why}: {len(answered)} of {len(images)} answered, then batches of at most {engine.batch_limit}")
    engine.close()


def _given_back(weights: int, device: str, why: str, notes: Notes) -> None:
    import torch

    left = torch.cuda.memory_allocated(device) - weights
    notes.check(f"{why}: nothing of the batches is kept", left < 1 << 26, f"{left >> 20} MiB")  # workspaces may stay


def _peak_bytes(model: Model, batch: Sequence[Prepared], device: str) -> int:
    """Return the memory that PyTorch takes from the driver for such a batch, including the weights."""
    import torch

    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    model.embed_images(batch)
    return torch.cuda.max_memory_reserved(device)


@contextlib.contextmanager
def _hog(device: str, leaves: int, notes: Notes) -> Iterator[None]:
    with subprocess.Popen(
        [sys.executable, "-c", _HOG, device, str(leaves)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as hog:
        said = hog.stdout.readline() if hog.stdout else ""
        notes.check("another process takes the memory", said == "taken\n", said)
        yield
        if hog.stdin:
            hog.stdin.close()
