"""The model's interface for the rest of the worker: plain Python and numpy, no PyTorch."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from worker.model.geometry import Geometry

Float32 = npt.NDArray[np.float32]
Scoring = Literal["softmax", "sigmoid"]


class ModelError(Exception):
    """The model failed on this input; others may still succeed."""


class ModelLoadError(ModelError):
    """The checkpoint cannot be used; one sentence says what failed, with which value, and what to do."""


class ModelOutOfMemoryError(ModelError):
    """The batch did not fit in the device's memory, which is free again, so a smaller one may pass."""


class DeviceLostError(ModelError):
    """The device no longer answers this process: every later call will fail, and only a new process helps."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """One image prepared on the host, ready to be stacked with others of the same `key`.

    Attributes:
        arrays: uint8 pixels (height, width, 3) after resize and crop; for a processor that does more, the processor's
            own arrays without their batch axis.
        key: equal for images that may share a batch.
    """

    arrays: Mapping[str, npt.NDArray[Any]]
    key: Hashable


@dataclass(frozen=True, slots=True)
class Logits:
    """``cosine * scale + bias``, with the best cosine if the image has several vectors.

    Attributes:
        scale: the factor of the cosine.
        bias: the summand.
    """

    scale: float
    bias: float

    def __call__(self, image: npt.NDArray[np.floating[Any]], texts: npt.NDArray[np.floating[Any]]) -> Float32:
        """Compute the logits of one image against k prompts, with numpy on the host: (k,), ready for `Scoring`.

        Args:
            image: (d,) or (q, d), a row of `Model.embed_images`.
            texts: (k, d), rows of `Model.embed_texts`.
        """
        # einsum instead of matmul, since BLAS threads would compete with those of the forward pass.
        cosines = np.einsum("qd,kd->qk", np.atleast_2d(image), texts).max(axis=0)
        logits: Float32 = (cosines * self.scale + self.bias).astype(np.float32)
        return logits


class HostModel(Protocol):
    """The parts of a checkpoint that need no device. Thread-safe."""

    #: The Hub id, or the last part of a folder's path (never the path: results travel).
    name: str
    #: The commit of a Hub checkpoint, where it is known; None for a folder.
    revision: str | None
    #: This is ``cpu`` or ``cuda:N``.
    device: str
    #: The number of concurrent batches that makes the device fastest: 1 for a GPU, more for a CPU's cores.
    parallel_batches: int
    #: The forward pass's dtype: ``float32``, ``float16`` or ``bfloat16``.
    dtype: str
    #: The checkpoint's ``model_type``, such as ``clip``.
    family: str
    #: The longest prompt the text tower reads, special tokens included.
    max_tokens: int
    #: The function that turns a job's logits into its scores.
    scoring: Scoring
    #: The whole of `prepare`, if it only resizes and crops; otherwise None.
    geometry: Geometry | None
    #: Computes the logits of an image against prompts, scale and bias included.
    logits: Logits

    def prepare(self, image: Image.Image) -> Prepared:
        """Resize, crop and convert one decoded image, exactly as the checkpoint's image processor does.

        Raises:
            ModelError: the processor refuses the image.
        """


class Model(HostModel, Protocol):
    """A loaded checkpoint.

    `embed_images` and `embed_texts` use the device and may be called from at most `parallel_batches` threads at once,
    `warm_up` from one; all else is thread-safe. d is the length of the model's vectors.
    """

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Count each prompt's tokens, special tokens included, before any padding or truncation."""

    def embed_images(self, batch: Sequence[Prepared], parallel: int = 1) -> Float32:
        """Compute the unit vectors of one or more prepared images of equal keys.

        Args:
            parallel: concurrent batches on the device, this one included; each gets an equal share of the cores.

        Returns:
            (n, d), or (n, q, d) for families with q vectors per image; float32.

        Raises:
            ModelOutOfMemoryError: a smaller batch may pass.
            DeviceLostError: the process has to be replaced.
            ModelError: any other failure, including vectors that are not finite.
        """

    def embed_texts(self, prompts: Sequence[str], parallel: int = 1) -> Float32:
        """Compute the unit vectors of k prompts, (k, d); up to rounding, each is independent of the other prompts.

        Args:
            parallel: see `embed_images`.

        Raises:
            ModelError: a prompt is longer than `max_tokens`, or see `embed_images`.
        """

    def warm_up(self) -> None:
        """Run a prompt and an image, so that no job waits for initialisation.

        Raises:
            ModelLoadError: the checkpoint loads but its forward pass fails.
            DeviceLostError: the process has to be replaced.
        """
