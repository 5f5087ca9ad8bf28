"""The description of its model that an engine sends to each front when it connects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from PIL import Image

from worker.decoding.images import MAX_ASPECT_RATIO
from worker.engine_process.memory import Layout, described, layout
from worker.model.geometry import Geometry, geometry_of
from worker.model.interface import Logits, Model, Scoring

#: Either a square or one of the two most extreme shapes gives the largest prepared image, so `info_for` prepares all
#: three.
_SIDE: Final = 64
_PROBES: Final = ((_SIDE, _SIDE), (_SIDE * MAX_ASPECT_RATIO, _SIDE), (_SIDE, _SIDE * MAX_ASPECT_RATIO))


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """A model's properties that fronts need, named as in `worker.model.interface.Model`.

    Attributes:
        max_batch: the most images in one forward pass.
        slot_bytes: the size of the largest prepared image.
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


def info_from(values: Mapping[str, Any]) -> EngineInfo:
    """Build an `EngineInfo` from its ``dataclasses.asdict`` as JSON returns it."""
    return EngineInfo(**{**values, "geometry": geometry_of(values["geometry"]), "logits": Logits(**values["logits"])})


def info_for(model: Model, max_batch: int) -> tuple[EngineInfo, Layout]:
    """Return the description of a model for its fronts, and the layout of one of its images."""
    layouts = [layout(described(model.prepare(Image.new("RGB", size, (127, 127, 127))).arrays)) for size in _PROBES]
    info = EngineInfo(
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
    return info, layouts[0]
