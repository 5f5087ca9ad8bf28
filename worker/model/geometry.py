"""Resize and crop as plain data, so that a process without the model's libraries can do it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image


@dataclass(frozen=True, slots=True)
class Geometry:
    """What a processor does to an image before it rescales and normalises its values.

    Attributes:
        size: (height, width) after the resize, an int for the shorter side, or None where nothing is resized.
        crop: (height, width) of a centre crop; what of it lies outside the image is black.
        paints_white: whether a colour that the image names as transparent becomes white.
        reducing_gap: so many times larger than needed an image must still be after a coarse first step, which a JPEG
            decoder takes by itself and ``Image.resize`` by whole factors; None: no such step, as in the processors.
    """

    size: tuple[int, int] | int | None
    resample: Image.Resampling
    crop: tuple[int, int] | None
    paints_white: bool = True
    reducing_gap: float | None = None

    @property
    def least_side(self) -> int | None:
        """Pixels that both sides of an image must keep if it is shrunk before `apply`; None: it must not be."""
        if self.reducing_gap is None or self.size is None:
            return None
        return math.ceil(self.reducing_gap * (self.size if isinstance(self.size, int) else max(self.size)))

    def apply(self, image: Image.Image, width: int | None = None, height: int | None = None) -> npt.NDArray[np.uint8]:
        """uint8 (height, width, 3) of an RGB image.

        Args:
            width: of the whole image, where this one was shrunk.
            height: likewise.

        Raises:
            ValueError: Pillow cannot make an image of the size that comes out.
        """
        # Rare: an RGB image that names a transparent colour.
        if self.paints_white and (image.mode != "RGB" or image.info.get("transparency") is not None):
            image = _on_white(image)
        if self.size is not None:
            resized = self._resized(width or image.width, height or image.height)
            image = image.resize(resized, self.resample, reducing_gap=self.reducing_gap)
        if self.crop is not None:
            height, width = self.crop
            left, top = (image.width - width) // 2, (image.height - height) // 2
            image = image.crop((left, top, left + width, top + height))
        return np.array(image)

    def values(self) -> tuple[object, ...]:
        """Plain values for JSON; `geometry_of` reads them."""
        return astuple(self)

    def shape(self, width: int, height: int) -> tuple[int, int, int]:
        """What `apply` gives for an image of this size: (height, width, 3)."""
        if self.crop is not None:
            return *self.crop, 3
        if self.size is not None:
            width, height = self._resized(width, height)
        return height, width, 3

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) after the resize; the longer side is rounded down, as the processors do it."""
        if isinstance(self.size, tuple):
            return self.size[1], self.size[0]
        short = self.size or 0
        if width <= height:
            return short, int(short * height / width)
        return int(short * width / height), short


def geometry_of(values: Sequence[object] | None) -> Geometry | None:
    """From what JSON makes of `Geometry.values`; None stays None."""
    if values is None:
        return None
    size, resample, crop, *others = values
    # JSON has no tuples; whoever wrote these values had a Geometry.
    return Geometry(_pair(size), Image.Resampling(resample), _pair(crop), *others)  # type: ignore[arg-type]


def _pair(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _on_white(image: Image.Image) -> Image.Image:
    """As ``transformers.image_transforms.convert_to_rgb``."""
    if "A" not in image.getbands() and image.info.get("transparency") is None:
        return image.convert("RGB")
    transparent = image.convert("RGBA")
    white = Image.new("RGBA", transparent.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, transparent).convert("RGB")
