"""A model without weights: a job's answer is a function of its pixels and labels, and the forward pass is a sleep."""

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
#: Spreads the softmax, so that rankings have a clear first.
LOGIT_SCALE = 10.0
#: Images that fail where they are told to, by the colour of their top left corner: when prepared, or in their batch.
REFUSED_COLOUR, BUG_COLOUR, FULL_COLOUR = (1, 0, 0), (2, 0, 0), (3, 0, 0)
#: The corner of an image that is poison, where images are.
POISON_COLOUR = (4, 0, 0)
#: What a process ends with that took the poison.
POISONED_EXIT = 9
#: Where a poison may end it: by a label or by an image.
PoisonedStage = Literal["tokens", "prompts", "preparation", "images"]


class NullModel:
    """Answers after `forward_ms + image_ms * n` milliseconds for n images; every process gives the same answers.

    Args:
        burn_ms: CPU time that preparing an image takes in Python, under its lock, ms.
        hangs: whether a forward pass must wait, as on a device that does not answer.
        poison_label: a prompt that holds it ends the process at once, as a fault in a native library would.
        poisoned_stage: where it does; where an image of the poison's colour does, in the two last stages.
        breaking_label: a prompt that holds it loses the device, as an illegal address would: all later calls fail.
        on_prepare: called in a job's own thread for each image that is about to be embedded.
        error_text: what the images of the three colours fail with; without it they are like any other.
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

    def embed_images(self, batch: Sequence[Prepared], parallel: int = 1) -> Float32:  # noqa: ARG002 - the interface's
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

    def embed_texts(self, prompts: Sequence[str], parallel: int = 1) -> Float32:  # noqa: ARG002 - the interface's
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
        """Nothing is cold."""


def _unit_vector(data: bytes) -> Float32:
    """A direction that depends on every byte, (d,)."""
    seed = int.from_bytes(hashlib.sha256(data).digest())
    vector = np.random.default_rng(seed).standard_normal(DIMENSIONS).astype(np.float32)
    unit: Float32 = vector / np.linalg.norm(vector)
    return unit
