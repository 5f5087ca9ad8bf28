"""What an engine tells each front of its model when it connects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from PIL import Image

from worker.decoding.images import MAX_ASPECT_RATIO
from worker.engine_process.memory import Layout, described, layout
from worker.model.geometry import Geometry, geometry_of
from worker.model.interface import Model, Scoring
from worker.model.logits import Logits

#: Images that take the most: square, and of the shapes furthest from it, larger than what any model resizes to.
_SIDE: Final = 64
_PROBES: Final = ((_SIDE, _SIDE), (_SIDE * MAX_ASPECT_RATIO, _SIDE), (_SIDE, _SIDE * MAX_ASPECT_RATIO))


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """A model as its fronts know it. The names are those of `worker.model.interface.Model`.

    Attributes:
        max_batch: images in one forward pass.
        slot_bytes: what one prepared image takes at most.
    """

    name: str
    revision: str | None
    device: str
    dtype: str
    family: str
    max_tokens: int
    scoring: Scoring
    geometry: Geometry | None
    logits: Logits
    parallel_batches: int
    max_batch: int
    slot_bytes: int

    def values(self) -> dict[str, Any]:
        """Plain values for JSON; `terms_of` reads them."""
        geometry = None if self.geometry is None else self.geometry.values()
        return {**asdict(self), "geometry": geometry}


def terms_of(values: Mapping[str, Any]) -> EngineInfo:
    """From what JSON makes of `EngineInfo.values`."""
    return EngineInfo(**{**values, "geometry": geometry_of(values["geometry"]), "logits": Logits(**values["logits"])})


def terms_for(model: Model, max_batch: int) -> tuple[EngineInfo, Layout]:
    """What a model's fronts are told, and how one of its images lies in a slot."""
    layouts = [layout(described(model.prepare(Image.new("RGB", size, (127, 127, 127))).arrays)) for size in _PROBES]
    terms = EngineInfo(
        name=model.name,
        revision=model.revision,
        device=model.device,
        dtype=model.dtype,
        family=model.family,
        max_tokens=model.max_tokens,
        scoring=model.scoring,
        geometry=model.geometry,
        logits=model.logits,
        parallel_batches=model.parallel_batches,
        max_batch=max_batch,
        slot_bytes=max(one.size_bytes for one in layouts),
    )
    return terms, layouts[0]
