"""What the rest of the worker knows of a model: plain Python and numpy, no PyTorch."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from worker.model.geometry import Geometry
from worker.model.logits import Logits

Float32 = npt.NDArray[np.float32]
Scoring = Literal["softmax", "sigmoid"]


class ModelError(Exception):
    """The model could not answer for this input; others may still be answered."""


class ModelLoadError(ModelError):
    """The checkpoint cannot be used; one sentence says what failed, with which value, and what to do."""


class ModelOutOfMemoryError(ModelError):
    """The batch did not fit in the device's memory; what it held is free again, so a smaller one may pass."""


class DeviceLostError(ModelError):
    """The device no longer answers this process: every later call will fail, and only a new process helps."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What one image has become on the host, ready to be stacked with others of the same `key`.

    `arrays` holds uint8 pixels (height, width, 3) after resize and crop, or, for a processor that does more than
    that, the processor's own arrays without their batch axis.
    """

    arrays: Mapping[str, npt.NDArray[Any]]
    key: Hashable


class HostModel(Protocol):
    """A checkpoint as far as a process without its device has it; all of it may be used from any number of threads."""

    @property
    def name(self) -> str:
        """The Hub id, or the last part of a folder's path (never the path: results travel)."""

    @property
    def revision(self) -> str | None:
        """Commit of a Hub checkpoint, where it is known; None for a folder."""

    @property
    def device(self) -> str:
        """`cpu` or `cuda:N`."""

    @property
    def parallel_batches(self) -> int:
        """How many batches at once make the device fastest: 1 for a GPU, more for the cores of a CPU."""

    @property
    def dtype(self) -> str:
        """`float32`, `float16` or `bfloat16`: what the forward pass computes in."""

    @property
    def family(self) -> str:
        """The checkpoint's `model_type`, such as `clip`."""

    @property
    def max_tokens(self) -> int:
        """The longest prompt the text tower reads, special tokens included."""

    @property
    def scoring(self) -> Scoring:
        """What turns the logits of one job into its scores."""

    @property
    def geometry(self) -> Geometry | None:
        """All that `prepare` does, where that is resizing and cropping; None where only `prepare` knows."""

    def prepare(self, image: Image.Image) -> Prepared:
        """Resize, crop and convert one decoded image, exactly as the checkpoint's image processor does.

        Raises:
            ModelError: the processor refuses the image.
        """

    @property
    def logits(self) -> Logits:
        """The logits of one image against k prompts, scale and bias included; numpy on the host only.

        Called with an image, (d,) or (q, d), a row of `Model.embed_images`, and texts, (k, d), rows of
        `Model.embed_texts`; gives (k,), ready for softmax or sigmoid as `scoring` says.
        """


class Model(HostModel, Protocol):
    """A loaded checkpoint.

    `embed_images` and `embed_texts` use the device and are called from at most `parallel_batches` threads at once,
    `warm_up` from one; all else may be called from any number of threads. d is the length of the model's vectors.
    """

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """How many tokens each prompt has, special tokens included, before any padding or truncation."""

    def embed_images(self, batch: Sequence[Prepared], parallel: int = 1) -> Float32:
        """The unit vectors of one or more prepared images of equal keys.

        Args:
            parallel: batches that the device works on meanwhile, this one included; it gets that share of the cores.

        Returns:
            (n, d), or (n, q, d) for a family that describes one image by q vectors.

        Raises:
            ModelOutOfMemoryError: a smaller batch may pass.
            DeviceLostError: the process has to be replaced.
            ModelError: any other failure, vectors that are not finite among them.
        """

    def embed_texts(self, prompts: Sequence[str], parallel: int = 1) -> Float32:
        """The unit vectors of one or more prompts, (k, d); the same whatever else is in the list, up to rounding.

        Args:
            parallel: as for `embed_images`.

        Raises:
            ModelError: a prompt is longer than `max_tokens`, or as for `embed_images`.
        """

    def warm_up(self, max_batch: int = 1) -> None:
        """Run a prompt, an image and a batch of `max_batch` images, so that the first job pays for no initialisation.

        Raises:
            ModelLoadError: the checkpoint loads but its forward pass fails.
            DeviceLostError: the process has to be replaced.
            ModelOutOfMemoryError: one image fits, `max_batch` do not.
        """
