"""A front's model: the parts of a checkpoint that need no device."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image

from worker.engine_process.info import EngineInfo
from worker.model.interface import Prepared
from worker.model.pixels import GeometryPreparation, Preparation


class RemoteModel:
    """Implements `worker.model.interface.HostModel`.

    Args:
        info: the engine's description of its model.
        load_preparation: called by the constructor if the model's preparation cannot be described by a geometry.
    """

    def __init__(self, info: EngineInfo, load_preparation: Callable[[], Preparation]) -> None:
        self.name, self.revision, self.family = info.name, info.revision, info.family
        self.device, self.dtype, self.parallel_batches = info.device, info.dtype, info.parallel_batches
        self.max_tokens, self.scoring, self.logits = info.max_tokens, info.scoring, info.logits
        self.geometry = info.geometry
        self._preparation = GeometryPreparation(info.geometry) if info.geometry else load_preparation()

    def prepare(self, image: Image.Image) -> Prepared:
        """Implement `HostModel.prepare`."""
        return self._preparation.prepare(image)
