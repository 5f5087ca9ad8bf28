"""Decodes a file and prepares it for the model, in the calling thread or in a confined process."""

from __future__ import annotations

from functools import partial
from typing import Protocol

from PIL import Image

from producer.contract.names import Queue
from worker.concurrency.budget import Budget
from worker.concurrency.cancel_scope import CancelScope
from worker.decoding.decoder import PreparedPicture
from worker.decoding.images import Decoded, open_image, refusal
from worker.decoding.pool import DecoderPool
from worker.engine.stages import Stages
from worker.model.geometry import Geometry
from worker.model.interface import HostModel, ModelError, Prepared
from worker.model.pixels import prepared


class Preparing(Protocol):
    """Decodes and prepares images. Thread-safe."""

    def prepare(self, data: bytes, scope: CancelScope, queue: Queue = "default") -> PreparedPicture:
        """Decode a file and prepare it for the model, within the queue's share of the memory and the processes.

        Raises:
            JobFailed: one of `worker.decoding.images.REFUSALS`, or ``deadline_exceeded``.
            Cancelled: the scope was cancelled.
        """

    def close(self) -> None:
        """Release all threads and processes."""


class InThreads:
    """Decodes and prepares images in the calling thread, or in the suspects' thread if the image is a suspect.

    Args:
        model: prepares decoded images if there is no geometry.
        budget: the bytes that all images together may use while they are decoded and prepared.
        geometry: describes the whole preparation; None if only the model can prepare images.
        max_pixels: the most pixels of one image.
        stages: runs suspects alone, because decoding here could crash the process.
    """

    def __init__(
        self,
        model: HostModel,
        budget: Budget,
        *,
        geometry: Geometry | None,
        max_pixels: int,
        stages: Stages | None = None,
    ) -> None:
        self._model, self._budget, self._geometry, self._max_pixels = model, budget, geometry, max_pixels
        self._stages = stages or Stages()

    def prepare(self, data: bytes, scope: CancelScope, queue: Queue = "default") -> PreparedPicture:
        """Implement `Preparing.prepare`; the scope ends the waits for a turn and for memory, but not decoding."""
        return self._stages.run(partial(self._prepare, data, scope, queue), scope)

    def close(self) -> None:
        """End the suspects' thread."""
        self._stages.close()

    def _prepare(self, data: bytes, scope: CancelScope, queue: Queue) -> PreparedPicture:
        opened = open_image(data, max_pixels=self._max_pixels)
        with self._budget.reserve(opened.memory_bytes, scope, queue):
            decoded = opened.decode(self._geometry.least_side if self._geometry else None)
            ready = self._ready(decoded)
            decoded.image.close()
        return PreparedPicture(ready, decoded.width, decoded.height, decoded.format)

    def _ready(self, decoded: Decoded) -> Prepared:
        if self._geometry is None:
            return _by_model(self._model, decoded.image)
        try:
            return prepared(self._geometry.apply(decoded.image, decoded.width, decoded.height))
        except ValueError:  # Pillow cannot create an image of the resulting size
            raise refusal("model_error") from None


class InProcesses:
    """Decodes images in a pool's processes, which also apply the geometry.

    If there is no geometry, the model prepares the decoded images in this process.
    """

    def __init__(self, model: HostModel, pool: DecoderPool, stages: Stages | None = None) -> None:
        self._model, self._pool = model, pool
        self._stages = stages or Stages()

    def prepare(self, data: bytes, scope: CancelScope, queue: Queue = "default") -> PreparedPicture:
        """Implement `Preparing.prepare`; the scope ends decoding too."""
        picture = self._pool.decode(data, scope, queue)
        if isinstance(picture, PreparedPicture):
            return picture
        ready = self._stages.run(partial(_by_model, self._model, picture.image), scope)
        return PreparedPicture(ready, picture.width, picture.height, picture.format)

    def close(self) -> None:
        """End the decoder processes and the suspects' thread."""
        self._pool.close()
        self._stages.close()


def _by_model(model: HostModel, image: Image.Image) -> Prepared:
    try:
        return model.prepare(image)
    except ModelError:
        raise refusal("model_error") from None
