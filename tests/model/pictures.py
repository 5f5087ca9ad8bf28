"""Picture files of every shape and mode that users send, and a function that decodes them as the worker does."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps


def decoded(path: Path) -> Image.Image:
    """Return the picture upright and in RGB, as the pipeline's own loader makes it."""
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def scene(width: int, height: int, seed: int) -> npt.NDArray[np.uint8]:
    """Return a coloured gradient with noise as uint8 (height, width, 3), different for every seed."""
    random = np.random.default_rng(seed)
    ends = random.uniform(0, 255, (2, 2, 3))
    down, across = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    smooth = ends[0, 0] * (1 - down) + ends[0, 1] * down + (ends[1, 0] * (1 - across) + ends[1, 1] * across)
    noisy: npt.NDArray[np.float64] = np.clip(smooth / 2 + random.normal(0, 12, (height, width, 3)), 0, 255)
    return noisy.astype(np.uint8)


def _picture(width: int, height: int, seed: int) -> Image.Image:
    return Image.fromarray(scene(width, height, seed))


def _with_alpha(mode: str, seed: int) -> Image.Image:
    image = _picture(50, 41, seed).convert(mode[:-1]).convert(mode)
    image.putalpha(Image.fromarray(scene(50, 41, seed + 50)[..., 0]))
    return image


def _palette(transparency: int | None) -> Image.Image:
    image = _picture(45, 60, 8 if transparency is None else 13).quantize(16)
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


def _one_transparent_colour() -> Image.Image:
    image = _picture(40, 40, 9)
    image.paste((10, 20, 30), (0, 0, 25, 25))
    image.info["transparency"] = (10, 20, 30)
    return image


def _bytes(image: Image.Image, kind: str, **settings: object) -> bytes:
    file = io.BytesIO()
    transparency = image.info.get("transparency")
    if transparency is not None:
        settings["transparency"] = transparency
    image.save(file, kind, **settings)
    return file.getvalue()


def _turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return _bytes(_picture(70, 33, 20 + orientation), "JPEG", exif=exif)


_FILES: Mapping[str, Callable[[], bytes]] = {
    "landscape.jpg": lambda: _bytes(_picture(97, 61, 1), "JPEG"),
    "portrait.jpg": lambda: _bytes(_picture(40, 133, 2), "JPEG"),
    "large.jpg": lambda: _bytes(_picture(641, 482, 3), "JPEG"),
    "tiny.png": lambda: _bytes(_picture(3, 2, 4), "PNG"),
    "one-pixel.png": lambda: _bytes(_picture(1, 1, 5), "PNG"),
    "line.png": lambda: _bytes(_picture(1, 19, 6), "PNG"),
    "grey.jpg": lambda: _bytes(_picture(64, 48, 7).convert("L"), "JPEG"),
    "black-and-white.png": lambda: _bytes(_picture(64, 48, 7).convert("1"), "PNG"),
    "palette.png": lambda: _bytes(_palette(None), "PNG"),
    "palette-transparent.png": lambda: _bytes(_palette(3), "PNG"),
    "colour-transparent.png": lambda: _bytes(_one_transparent_colour(), "PNG"),
    "alpha.png": lambda: _bytes(_with_alpha("RGBA", 10), "PNG"),
    "grey-alpha.png": lambda: _bytes(_with_alpha("LA", 11), "PNG"),
    "cmyk.jpg": lambda: _bytes(_picture(52, 47, 12).convert("CMYK"), "JPEG"),
    "turned-right.jpg": lambda: _turned(6),
    "mirrored.jpg": lambda: _turned(4),
}


def write_all(folder: Path) -> list[Path]:
    """Write all pictures into the folder, and return their files."""
    for name, content in _FILES.items():
        (folder / name).write_bytes(content())
    return [folder / name for name in _FILES]
