"""Draw a small picture beside text in a terminal, with the terminal's graphics protocol or with half blocks."""

from __future__ import annotations

import base64
import io
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from producer.cli.terminal import Graphics, cell_size, graphics, moves_its_cursor
from producer.errors import UsageError

if TYPE_CHECKING:
    from PIL import Image
    from rich.console import Console

Method = Graphics | Literal["blocks"]

#: The size of a thumbnail in character cells, about a square; and the narrowest terminal that has room for a thumbnail
#: and a ranking.
COLUMNS: Final = 16
ROWS: Final = 8
_LEAST_WIDTH: Final = 72
#: Larger pictures take too long to decode for a decoration.
_MAX_PIXELS: Final = 50_000_000
_FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "AVIF")
_KITTY_CHUNK: Final = 4096
_SIXEL_COLOURS: Final = 128


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A drawn picture: the text to write at its upper left corner, and the number of cells that it covers."""

    drawing: str
    columns: int
    rows: int


def drawing_method(console: Console, images: Sequence[str], *, show: bool | None) -> Method | None:
    """Return how to draw the local files among the images; None if there are none or they should not be drawn.

    Args:
        show: draw with half blocks where the terminal has no graphics (True), never draw (False), or draw only with
            graphics (None).

    Raises:
        UsageError: ``show`` is True, and Pillow is not installed.
    """
    if show is False or all("://" in image for image in images):
        return None
    if find_spec("PIL") is None:
        if show:
            raise UsageError("--show needs Pillow; install nameshot[images].")
        return None
    if not moves_its_cursor() or console.width < _LEAST_WIDTH or console.height < ROWS + 3:
        return None
    return graphics() or ("blocks" if show and console.encoding.lower().startswith("utf") else None)


def draw(console: Console, image: str, method: Method) -> Thumbnail | None:
    """Draw a local file; return None for a URL, and for a file that Pillow cannot read."""
    if "://" in image:
        return None
    cell = cell_size() if method != "blocks" else (1, 2)
    try:
        picture = _read(Path(image), (COLUMNS * cell[0], ROWS * cell[1]))
    except Exception:  # Pillow's decoders raise almost any exception; print the ranking without the picture
        return None
    columns, rows = math.ceil(picture.width / cell[0]), math.ceil(picture.height / cell[1])
    match method:
        case "kitty":
            drawing = _kitty(picture, f"c={columns}" if columns == COLUMNS else f"r={rows}")
        case "iterm":
            drawing = f"\x1b]1337;File=inline=1;width={columns};height={rows}:{_png(picture)}\a"
        case "sixel":
            drawing = _sixel(picture)
        case "blocks":
            drawing = _blocks(console, picture)
    return Thumbnail(drawing, columns, rows)


def _read(file: Path, box: tuple[int, int]) -> Image.Image:
    from PIL import Image, ImageOps

    with warnings.catch_warnings(action="ignore"), Image.open(file, formats=_FORMATS) as image:
        if image.width * image.height > _MAX_PIXELS:
            raise ValueError
        image.draft("RGB", box)
        return ImageOps.contain(ImageOps.exif_transpose(image).convert("RGB"), box)


def _png(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _kitty(picture: Image.Image, size: str) -> str:
    data = _png(picture)
    chunks = [data[start : start + _KITTY_CHUNK] for start in range(0, len(data), _KITTY_CHUNK)]
    # q=2: the terminal sends no reply; C=1: the cursor does not move; m: whether more chunks follow.
    options = [f"a=T,f=100,q=2,C=1,{size},m=1", *["m=1"] * (len(chunks) - 1)]
    options[-1] = options[-1].replace("m=1", "m=0")
    return "".join(f"\x1b_G{option};{chunk}\x1b\\" for option, chunk in zip(options, chunks, strict=True))


def _sixel(picture: Image.Image) -> str:
    """Return the picture as bands of six rows of pixels, each with one run-length encoded line of bits per colour."""
    paletted = picture.quantize(_SIXEL_COLOURS)
    width, height = paletted.size
    pixels = paletted.tobytes()
    percents = [round(value * 100 / 255) for value in paletted.getpalette() or []]
    colours = zip(percents[::3], percents[1::3], percents[2::3], strict=True)
    parts = [f'\x1bP0;1q"1;1;{width};{height}', *(f"#{n};2;{r};{g};{b}" for n, (r, g, b) in enumerate(colours))]
    for top in range(0, height, 6):
        lines: dict[int, bytearray] = {}
        for y in range(top, min(top + 6, height)):
            for x, colour in enumerate(pixels[y * width : (y + 1) * width]):
                lines.setdefault(colour, bytearray(b"?" * width))[x] += 1 << (y - top)
        parts.append("$".join(f"#{colour}{line.decode()}" for colour, line in lines.items()) + "-")
    return re.sub(r"([?-~])\1{3,}", lambda run: f"!{len(run[0])}{run[1]}", "".join(parts)) + "\x1b\\"


def _blocks(console: Console, picture: Image.Image) -> str:
    """Return the picture with two pixels per cell: the colour of a half block, and below it the background's colour."""
    from rich.color import Color
    from rich.style import Style
    from rich.text import Text

    text = Text(end="")
    pixels = picture.tobytes()
    colours = [Color.from_rgb(*pixels[start : start + 3]) for start in range(0, len(pixels), 3)]
    for y in range(0, picture.height, 2):
        for x in range(picture.width):
            behind = colours[(y + 1) * picture.width + x] if y + 1 < picture.height else None
            text.append("▀", Style(color=colours[y * picture.width + x], bgcolor=behind))
        text.append("\n")
    with console.capture() as capture:
        console.print(text, no_wrap=True)
    return capture.get()
