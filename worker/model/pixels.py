"""Prepares images on the host; most checkpoints' processors are split into a part for Pillow and one for the device.

Most processors resize, crop, rescale and normalise. Pillow resizes and crops each image on the host, with exactly the
processor's result; the device rescales and normalises a whole batch at once. Until then the values stay uint8, which
are a quarter of the bytes to copy, and the host's threads do no floating-point work under Python's lock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from worker.model.geometry import Geometry
from worker.model.interface import Float32, ModelError, Prepared

PIXELS: Final = "pixels"
#: Rounding changes float32 values of up to 3 by less than this; a difference of one grey level changes them by at least
#: a thousand times as much.
_TOLERANCE: Final = 2e-6

#: An image processor of Transformers, which publishes no useful types.
Processor = Any


class Preparation(Protocol):
    """Prepares decoded images on the host."""

    def prepare(self, image: Image.Image) -> Prepared:
        """Prepare one image, like `Model.prepare`."""


@dataclass(frozen=True, slots=True)
class Affine:
    """A processor's rescaling and normalisation: ``value * scale + offset``, with a scale and an offset per channel."""

    scale: Float32
    offset: Float32

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> Float32:
        """Return float32 (3, height, width) for uint8 (height, width, 3)."""
        return np.moveaxis(pixels * self.scale + self.offset, -1, 0)


def prepared(pixels: npt.NDArray[np.uint8]) -> Prepared:
    """Return a `Geometry`'s output, uint8 (height, width, 3), as a prepared image."""
    return Prepared({PIXELS: pixels}, key=pixels.shape)


class GeometryPreparation:
    """Resizes and crops; the device does the rest."""

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry

    def prepare(self, image: Image.Image) -> Prepared:
        """Return uint8 pixels, (height, width, 3)."""
        try:
            return prepared(self.geometry.apply(image))
        except ValueError as refusal:
            raise _refused(image) from refusal


class SplitPreparation(GeometryPreparation):
    """Applies the geometry on the host; `affine` is the device's part."""

    def __init__(self, geometry: Geometry, affine: Affine) -> None:
        super().__init__(geometry)
        self.affine = affine


class WholePreparation:
    """Runs a processor that does more than resize, crop, rescale and normalise."""

    def __init__(self, processor: Processor) -> None:
        self._processor = processor

    def prepare(self, image: Image.Image) -> Prepared:
        """Return the processor's arrays, each without its batch axis."""
        try:
            output: Mapping[str, Any] = self._processor(images=[image], return_tensors="np")
        except ValueError as refusal:
            raise _refused(image) from refusal
        arrays = {name: np.asarray(array)[0] for name, array in output.items()}
        return Prepared(arrays, key=tuple((name, array.shape, array.dtype.str) for name, array in arrays.items()))


def _refused(image: Image.Image) -> ModelError:
    return ModelError(f"the model's image processor cannot use an image of {image.width}x{image.height} pixels")


def preparation(processor: Processor) -> SplitPreparation | WholePreparation:
    """Return a preparation split between host and device if its output equals the processor's, else a whole one."""
    try:
        split = _split(processor)
    except Exception:  # a processor on which any step fails is not split
        split = None
    return split or WholePreparation(processor)


def _split(processor: Processor) -> SplitPreparation | None:
    if processor.do_pad:
        return None
    size = dict(processor.size) if processor.do_resize else {}
    resized: tuple[int, int] | int | None = None
    if set(size) == {"height", "width"}:
        resized = (size["height"], size["width"])
    elif set(size) == {"shortest_edge"}:
        resized = size["shortest_edge"]
    elif size:
        return None
    crop = (processor.crop_size.height, processor.crop_size.width) if processor.do_center_crop else None
    geometry = Geometry(resized, Image.Resampling(processor.resample), crop, bool(processor.do_convert_rgb))
    split = SplitPreparation(geometry, _affine(processor))
    # The processor may do more than these attributes say, so compare with its actual output.
    for probe in _probes():
        found = split.affine(geometry.apply(probe))
        expected = processor(images=[probe], return_tensors="np")
        if set(expected) != {"pixel_values"} or expected["pixel_values"][0].shape != found.shape:
            return None
        if not np.allclose(found, expected["pixel_values"][0], rtol=0, atol=_TOLERANCE):
            return None
    return split


def _affine(processor: Processor) -> Affine:
    """Return the scale and offset that follow from the processor's output for black and white."""
    ends = np.zeros((2, 8, 8, 3), np.uint8)
    ends[1] = 255
    output = processor(images=[Image.fromarray(end) for end in ends], do_resize=False, do_center_crop=False)
    black, white = (np.asarray(values, np.float64)[:, 0, 0] for values in output["pixel_values"])
    return Affine(((white - black) / 255).astype(np.float32), black.astype(np.float32))


def _probes() -> Iterator[Image.Image]:
    """Yield images: wide, tall, tiny, one column, odd sides, every level of every channel, a transparent colour."""
    random = np.random.default_rng(0)
    for width, height in ((61, 40), (33, 97), (3, 2), (1, 7), (500, 333)):
        yield Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8))
    yield Image.fromarray(np.arange(256 * 256 * 3, dtype=np.uint32).reshape(256, 256, 3).astype(np.uint8))
    transparent = Image.new("RGB", (40, 30), (200, 30, 90))
    transparent.paste((9, 8, 7), (5, 5, 30, 12))
    transparent.info["transparency"] = (200, 30, 90)
    yield transparent
