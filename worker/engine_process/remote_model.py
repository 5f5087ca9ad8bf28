"""A front's model: everything of a checkpoint that needs no device."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image

from worker.engine_process.terms import EngineInfo
from worker.model.interface import Prepared
from worker.model.pixels import GeometryPreparation, Preparation


class RemoteModel:
    """Implements `worker.model.interface.HostModel`.

    Args:
        terms: what the engine said of its model.
        load_preparation: called, at once, where a geometry does not say all that `prepare` does.
    """

    def __init__(self, terms: EngineInfo, load_preparation: Callable[[], Preparation]) -> None:
        self.name, self.revision, self.family = terms.name, terms.revision, terms.family
        self.device, self.dtype, self.parallel_batches = terms.device, terms.dtype, terms.parallel_batches
        self.max_tokens, self.scoring, self.logits = terms.max_tokens, terms.scoring, terms.logits
        self.geometry = terms.geometry
        self._preparation = GeometryPreparation(terms.geometry) if terms.geometry else load_preparation()

    def prepare(self, image: Image.Image) -> Prepared:
        """As `HostModel.prepare`."""
        return self._preparation.prepare(image)
