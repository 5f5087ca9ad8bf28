"""A resize and a crop described by plain data, so that a process without the model's libraries can apply them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image


@dataclass(frozen=True, slots=True)
class Geometry:
    """What an image processor does before it rescales and normalises the values.

    Attributes:
        size: after the resize, (height, width) or the shorter side; None if there is no resize.
        resample: the resize's filter.
        crop: (height, width) of a centre crop, black where it exceeds the image; None if there is no crop.
        paints_white: whether a colour that the image names as transparent becomes white.
        reducing_gap: if None, images are shrunk in one step, as by the processors. Otherwise a JPEG's decoder or
            ``Image.resize`` first shrinks the image coarsely by a whole factor, but leaves it at least this many times
            as large as needed.
    """

    size: tuple[int, int] | int | None
    resample: Image.Resampling
    crop: tuple[int, int] | None
    paints_white: bool = True
    reducing_gap: float | None = None

    @property
    def least_side(self) -> int | None:
        """The pixels that each side must keep if an image is shrunk before `apply`; None if it must not be shrunk."""
        if self.reducing_gap is None or self.size is None:
            return None
        return math.ceil(self.reducing_gap * (self.size if isinstance(self.size, int) else max(self.size)))

    def apply(self, image: Image.Image, width: int | None = None, height: int | None = None) -> npt.NDArray[np.uint8]:
        """Resize and crop an image and return its RGB values, uint8 (height, width, 3).

        Args:
            width: the original width, if the image was shrunk before.
            height: the original height, if the image was shrunk before.

        Raises:
            ValueError: Pillow cannot create an image of the resulting size.
        """
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

    def shape(self, width: int, height: int) -> tuple[int, int, int]:
        """Return the shape of `apply`'s output for an image of this size: (height, width, 3)."""
        if self.crop is not None:
            return *self.crop, 3
        if self.size is not None:
            width, height = self._resized(width, height)
        return height, width, 3

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """Return (width, height) after the resize; the longer side is rounded down, as in the processors."""
        if isinstance(self.size, tuple):
            return self.size[1], self.size[0]
        short = self.size or 0
        if width <= height:
            return short, int(short * height / width)
        return int(short * width / height), short


def geometry_of(values: Mapping[str, Any] | None) -> Geometry | None:
    """Build a `Geometry` from its ``dataclasses.asdict`` as JSON returns it; return None if ``values`` is None."""
    if values is None:
        return None
    # JSON has no tuples, so it returns lists instead.
    pairs: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return Geometry(**{**pairs, "resample": Image.Resampling(values["resample"])})


def _on_white(image: Image.Image) -> Image.Image:
    """Return an RGB image with white where this one is transparent, as Transformers' ``convert_to_rgb`` does."""
    if "A" not in image.getbands() and image.info.get("transparency") is None:
        return image.convert("RGB")
    transparent = image.convert("RGBA")
    white = Image.new("RGBA", transparent.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, transparent).convert("RGB")
