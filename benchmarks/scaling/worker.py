"""The real worker on a simulated device: ``celery -A benchmarks.scaling.worker worker``.

Environment, beside a worker's own and that of `benchmarks.scaling.device`:
    SCALING_PICTURES: ``ready`` gives every job a tiny picture that is in memory, so that neither network nor decoder
        cost anything; with ``fetched`` pictures are downloaded, decoded, resized and cropped as CLIP wants them.
"""

from __future__ import annotations

import io
import os
from typing import Any

from PIL import Image

from benchmarks.scaling.device import Device
from tests.chaos.null_model import SIDE_PIXELS, NullModel
from worker import service
from worker.celery import app
from worker.fetch import Fetcher
from worker.fetch.files import File
from worker.model.geometry import Geometry
from worker.model.interface import Prepared

__all__ = ["app"]

#: CLIP's.
GEOMETRY = Geometry(224, Image.Resampling.BICUBIC, (224, 224))


class ClipSized(NullModel):
    """Prepares pictures with what CLIP's processor costs; the device is the null model's sleep."""

    def prepare(self, image: Image.Image) -> Prepared:
        return super().prepare(Image.fromarray(GEOMETRY.apply(image)))


class ReadyPictures(Fetcher):
    """A fetcher whose downloads are there already."""

    def __init__(self, *_: Any, **__: Any) -> None:
        file = io.BytesIO()
        Image.new("RGB", (SIDE_PIXELS, SIDE_PIXELS)).save(file, "PNG")
        self._picture = file.getvalue()

    def fetch(self, url: str, **_: Any) -> File:  # noqa: ARG002 - a fetcher's
        """The same bytes for each URL."""
        return File(self._picture)

    def close(self) -> None:
        """Nothing is open."""


def _load(_model: str, **_: Any) -> NullModel:
    device = Device.of(os.environ)
    kind = NullModel if os.environ["SCALING_PICTURES"] == "ready" else ClipSized
    return kind(forward_ms=device.forward_ms, image_ms=device.image_ms)


if os.environ.get("SCALING_PICTURES") == "ready":
    service.Fetcher = ReadyPictures  # type: ignore[attr-defined]  # a service is built with no other fetcher
app.load_model = _load
