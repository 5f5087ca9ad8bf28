"""The real worker with a simulated device: ``celery -A benchmarks.scaling.worker worker``.

Environment, in addition to a worker's own variables and those of `benchmarks.scaling.device`:
    SCALING_PICTURES: with ``ready``, every job gets a tiny picture from memory, so that network and decoding cost
        little; with ``fetched``, pictures are downloaded, decoded, resized and cropped as for CLIP.
"""

from __future__ import annotations

import io
import os
from typing import Any

from PIL import Image

from benchmarks.scaling.device import Device
from tests.chaos.null_model import SIDE_PIXELS, NullModel
from worker import downloads
from worker.celery import app
from worker.fetch.files import File
from worker.fetch.uploads import Fetchers
from worker.model.geometry import Geometry
from worker.model.interface import Prepared

__all__ = ["app"]

#: This is the geometry of CLIP.
GEOMETRY = Geometry(224, Image.Resampling.BICUBIC, (224, 224))


class ClipSized(NullModel):
    """A null model that prepares pictures at the cost of CLIP's processor; its device sleeps."""

    def prepare(self, image: Image.Image) -> Prepared:
        return super().prepare(Image.fromarray(GEOMETRY.apply(image)))


class ReadyPictures(Fetchers):
    """A fetcher that returns a picture from memory."""

    def __init__(self, *_: Any, **__: Any) -> None:
        file = io.BytesIO()
        Image.new("RGB", (SIDE_PIXELS, SIDE_PIXELS)).save(file, "PNG")
        self._picture = file.getvalue()

    def fetch(self, url: str, **_: Any) -> File:  # noqa: ARG002 - a fetcher's parameter
        """Return the same bytes for each URL."""
        return File(self._picture)

    def close(self) -> None:
        """Do nothing, because no connection is open."""


def _load(_model: str, **_: Any) -> NullModel:
    device = Device.of(os.environ)
    kind = NullModel if os.environ["SCALING_PICTURES"] == "ready" else ClipSized
    return kind(forward_ms=device.forward_ms, image_ms=device.image_ms)


if os.environ.get("SCALING_PICTURES") == "ready":
    downloads.Fetchers = ReadyPictures  # type: ignore[attr-defined]  # `service.build` has no parameter for this
app.load_model = _load
