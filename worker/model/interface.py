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
    """The base class of this package's errors; raised directly when the model fails on one input."""


class ModelLoadError(ModelError):
    """The checkpoint cannot be used; the message says in one sentence what failed, with which value, and what to do."""


class ModelOutOfMemoryError(ModelError):
    """The batch did not fit in the device's memory, which is free again, so a smaller batch may fit."""


class DeviceLostError(ModelError):
    """The device no longer responds to this process: every later call will fail, and only a new process helps."""


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
    """Computes logits, ``cosine * scale + bias``, with the largest cosine if the image has several vectors.

    Attributes:
        scale: the factor of the cosine.
        bias: the summand.
    """

    scale: float
    bias: float

    def __call__(self, image: npt.NDArray[np.floating[Any]], texts: npt.NDArray[np.floating[Any]]) -> Float32:
        """Return the logits of one image for k prompts, (k,).

        Args:
            image: (d,) or (q, d), a row of `Model.embed_images`.
            texts: (k, d), rows of `Model.embed_texts`.

        Raises:
            ModelError: a logit is not finite, because the factor makes it overflow.
        """
        # This is einsum instead of matmul, because BLAS threads would compete with those of the forward pass.
        cosines = np.einsum("qd,kd->qk", np.atleast_2d(image), texts).max(axis=0)
        with np.errstate(over="ignore"):
            logits: Float32 = (cosines * self.scale + self.bias).astype(np.float32)
        if not np.isfinite(logits).all():
            raise ModelError("the model's logits are not finite")
        return logits


class HostModel(Protocol):
    """The parts of a checkpoint that need no device. Thread-safe."""

    #: The Hub id, or the last part of a folder's path; never the whole path, because clients see the name in each
    #: result.
    name: str
    #: The commit of a Hub checkpoint; None if the checkpoint is a folder.
    revision: str | None
    #: The device's name, ``cpu`` or ``cuda:N``.
    device: str
    #: The number of concurrent batches with which the device is fastest: 1 for a GPU, up to one per core for a CPU.
    parallel_batches: int
    #: The forward pass's dtype: ``float32``, ``float16`` or ``bfloat16``.
    dtype: str
    #: The checkpoint's ``model_type``, such as ``clip``.
    family: str
    #: The length of the longest prompt that the text tower reads, in tokens, special tokens included.
    max_tokens: int
    #: The function that turns a job's logits into its scores.
    scoring: Scoring
    #: The resize and crop of which `prepare` consists; None if `prepare` does more.
    geometry: Geometry | None
    #: A function of one image's vectors, (d,) or (q, d), and of k prompts' vectors, (k, d), that returns k logits.
    logits: Logits

    def prepare(self, image: Image.Image) -> Prepared:
        """Resize, crop and convert one decoded image, exactly as the checkpoint's image processor does.

        Raises:
            ModelError: the processor refuses the image.
        """


class Model(HostModel, Protocol):
    """A loaded checkpoint.

    At most `parallel_batches` threads may call `embed_images` and `embed_texts` at once, because these use the device,
    and only one thread may call `warm_up`. All other methods are thread-safe. d is the length of the model's vectors.
    """

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Count each prompt's tokens, special tokens included, before any padding or truncation."""

    def embed_images(self, batch: Sequence[Prepared], parallel: int = 1) -> Float32:
        """Return the unit vectors of n prepared images of equal keys; n is at least 1.

        Args:
            parallel: the number of batches on the device, this one included; each uses an equal share of the cores.

        Returns:
            (n, d), or (n, q, d) for families with q vectors per image; float32.

        Raises:
            ModelOutOfMemoryError: a smaller batch may fit.
            DeviceLostError: the process has to be replaced.
            ModelError: any other failure, including vectors that are not finite.
        """

    def embed_texts(self, prompts: Sequence[str], parallel: int = 1) -> Float32:
        """Return the unit vectors of k prompts, (k, d); up to rounding, none depends on the other prompts.

        Args:
            parallel: see `embed_images`.

        Raises:
            ModelError: a prompt is longer than `max_tokens`; otherwise as `embed_images`.
        """

    def warm_up(self) -> None:
        """Embed a prompt and an image, so that no job waits for initialisation.

        Raises:
            ModelLoadError: the checkpoint loads but its forward pass fails.
            DeviceLostError: the process has to be replaced.
        """
