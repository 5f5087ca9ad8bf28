"""From a file's bytes to what the model takes: in the calling thread, or in a process that has nothing to lose."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Protocol

from PIL import Image

from producer.contract import Queue
from worker.concurrency.budget import Budget
from worker.concurrency.cancel_scope import CancelScope
from worker.decoding.images import Decoded, open_image, refusal
from worker.decoding.pool import DecoderPool
from worker.engine.stages import Stages
from worker.model.geometry import Geometry
from worker.model.interface import HostModel, ModelError, Prepared
from worker.model.pixels import prepared


@dataclass(frozen=True, slots=True)
class PreparedPicture:
    """An image that may join a batch.

    Attributes:
        width: of the decoded image, in pixels, upright.
        height: likewise.
        format: ``JPEG``, ``PNG``, ``WEBP`` or ``GIF``.
    """

    prepared: Prepared
    width: int
    height: int
    format: str


class Preparing(Protocol):
    """Decodes and prepares, for many threads at once."""

    def prepare(self, data: bytes, scope: CancelScope, queue: Queue = "default") -> PreparedPicture:
        """Make of a file what the model takes, within its queue's share of what decoding takes.

        Raises:
            JobFailed: one of `worker.decoding.images.REFUSALS`, or ``deadline_exceeded``.
            Cancelled: somebody has cancelled the scope.
        """
        ...

    def close(self) -> None:
        """Leave nothing behind."""
        ...


class InThreads:
    """In the thread that asks.

    Args:
        model: prepares what was decoded, where there is no geometry.
        budget: bytes that images may take meanwhile, all together.
        geometry: all that is done to an image; None where only the model knows.
        max_pixels: of one image.
        stages: says what runs beside what: all that is done here could end the process.
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
        """As `Preparing.prepare`; the scope bounds the wait for its turn and for memory only."""
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
        except ValueError:  # Pillow makes no image of that size
            raise refusal("model_error") from None


class InProcesses:
    """In the processes of a pool, which does the geometry of its terms; without one, the model prepares here."""

    def __init__(self, model: HostModel, pool: DecoderPool, stages: Stages | None = None) -> None:
        self._model, self._pool = model, pool
        self._stages = stages or Stages()

    def prepare(self, data: bytes, scope: CancelScope, queue: Queue = "default") -> PreparedPicture:
        """As `Preparing.prepare`; whatever an image does there, it is over when the scope is."""
        picture = self._pool.decode(data, scope, queue)
        if self._pool.terms.geometry is not None:
            ready = prepared(picture.pixels)
        else:
            ready = self._stages.run(partial(_by_model, self._model, picture.image()), scope)
        return PreparedPicture(ready, picture.width, picture.height, picture.format)

    def close(self) -> None:
        """End the processes."""
        self._pool.close()
        self._stages.close()


def _by_model(model: HostModel, image: Image.Image) -> Prepared:
    try:
        return model.prepare(image)
    except ModelError:
        raise refusal("model_error") from None
