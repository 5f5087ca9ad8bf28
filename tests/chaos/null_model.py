"""A model without weights: its answers depend only on pixels and labels, and its forward pass only sleeps."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from PIL import Image

from worker.model.geometry import Geometry
from worker.model.interface import (
    DeviceLostError,
    Float32,
    Logits,
    ModelError,
    ModelOutOfMemoryError,
    Prepared,
    Scoring,
)

SIDE_PIXELS = 8
DIMENSIONS = 16
#: Large enough that every ranking has a clear best label.
LOGIT_SCALE = 10.0
#: With an `error_text`, images whose top left corner has one of these colours fail: the first in preparation, the
#: others in their batch, with an unexpected error and for lack of memory.
REFUSED_COLOUR, BUG_COLOUR, FULL_COLOUR = (1, 0, 0), (2, 0, 0), (3, 0, 0)
#: The colour of the top left corner of an image that ends the process.
POISON_COLOUR = (4, 0, 0)
#: The exit status of a process that a poisoned prompt or image ended.
POISONED_EXIT = 9
#: The stage at which a poisoned label (in the first two) or image (in the last two) ends the process.
PoisonedStage = Literal["tokens", "prompts", "preparation", "images"]


class NullModel:
    """Gives the same answers in every process; a forward pass on n images takes `forward_ms + image_ms * n`.

    Args:
        burn_ms: the CPU time for which preparing an image holds Python's lock.
        hangs: while it returns True, forward passes wait, as on a device that hangs.
        poison_label: a prompt with this label ends the process at once, as a fault in a native library would.
        poisoned_stage: the stage at which such a prompt, or an image of `POISON_COLOUR`, ends the process.
        breaking_label: a prompt with this label loses the device, as an illegal address would: all later calls fail.
        on_prepare: called in a job's own thread for each image that is about to be embedded.
        error_text: the text of the errors for images of the three colours above; without it they succeed.
    """

    name = "null"
    revision: str | None = None
    device = "cpu"
    parallel_batches = 1
    dtype = "float32"
    family = "null"
    max_tokens = 77
    scoring: Scoring = "softmax"
    geometry: Geometry | None = None
    logits = Logits(LOGIT_SCALE, 0.0)

    def __init__(
        self,
        *,
        forward_ms: float = 0.0,
        image_ms: float = 0.0,
        burn_ms: float = 0.0,
        poison_label: str | None = None,
        poisoned_stage: PoisonedStage = "prompts",
        breaking_label: str | None = None,
        hangs: Callable[[], bool] = lambda: False,
        on_prepare: Callable[[], None] = lambda: None,
        error_text: str | None = None,
    ) -> None:
        self._forward_ms = forward_ms
        self._image_ms = image_ms
        self._burn_ms = burn_ms
        self._poison_label = poison_label
        self._poisoned_stage = poisoned_stage
        self._breaking_label = breaking_label
        self._is_lost = False
        self._hangs = hangs
        self._on_prepare = on_prepare
        self._error_text = error_text

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        self._take_labels("tokens", prompts)
        return [min(len(prompt.split()), self.max_tokens) for prompt in prompts]

    def prepare(self, image: Image.Image) -> Prepared:
        self._on_prepare()
        ends_s = time.thread_time() + self._burn_ms / 1000
        while time.thread_time() < ends_s:
            pass
        if self._error_text and image.convert("RGB").getpixel((0, 0)) == REFUSED_COLOUR:
            raise ModelError(self._error_text)
        small = image.convert("RGB").resize((SIDE_PIXELS, SIDE_PIXELS), Image.Resampling.NEAREST)
        pixels = np.asarray(small, dtype=np.uint8)
        self._take_images("preparation", [tuple(pixels[0, 0])])
        return Prepared({"pixels": pixels}, key=None)

    def embed_images(self, batch: Sequence[Prepared], parallel: int = 1) -> Float32:  # noqa: ARG002 - the interface has it
        while self._hangs():
            time.sleep(0.05)
        time.sleep((self._forward_ms + self._image_ms * len(batch)) / 1000)
        self._use_device()
        corners = [tuple(image.arrays["pixels"][0, 0]) for image in batch]
        self._take_images("images", corners)
        if self._error_text and FULL_COLOUR in corners:
            raise ModelOutOfMemoryError(self._error_text)
        if self._error_text and BUG_COLOUR in corners:
            raise RuntimeError(self._error_text)
        return np.stack([_unit_vector(image.arrays["pixels"].tobytes()) for image in batch])

    def embed_texts(self, prompts: Sequence[str], parallel: int = 1) -> Float32:  # noqa: ARG002 - the interface has it
        self._take_labels("prompts", prompts)
        self._is_lost |= self._breaking_label is not None and any(self._breaking_label in prompt for prompt in prompts)
        self._use_device()
        return np.stack([_unit_vector(prompt.encode()) for prompt in prompts])

    def _take_labels(self, stage: PoisonedStage, prompts: Sequence[str]) -> None:
        label = self._poison_label
        if stage == self._poisoned_stage and label is not None and any(label in prompt for prompt in prompts):
            os._exit(POISONED_EXIT)

    def _take_images(self, stage: PoisonedStage, corners: Sequence[tuple[int, ...]]) -> None:
        if stage == self._poisoned_stage and POISON_COLOUR in corners:
            os._exit(POISONED_EXIT)

    def _use_device(self) -> None:
        if self._is_lost:
            raise DeviceLostError("an illegal memory access was encountered")

    def warm_up(self, max_batch: int = 1) -> None:
        """Do nothing: this model needs no warm-up."""


def _unit_vector(data: bytes) -> Float32:
    """Return a unit vector, shape (d,), that depends on every byte."""
    seed = int.from_bytes(hashlib.sha256(data).digest())
    vector = np.random.default_rng(seed).standard_normal(DIMENSIONS).astype(np.float32)
    unit: Float32 = vector / np.linalg.norm(vector)
    return unit
