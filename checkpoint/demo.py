"""Compose the demo's pictures: `python -m checkpoint.demo producer/demo/pictures`."""

import argparse
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from PIL import Image, ImageDraw

from checkpoint.data import MODULES, drawing

Colour = tuple[int, int, int]

# Large enough to look at, small enough to ship eight of them.
_HEIGHT: Final = 192
# Drawn twice as large and then halved, which smooths the edges of the ground.
_OVERSAMPLE: Final = 2
# Of the picture's height.
_EMOJI: Final = 0.72
_GROUND: Final = 0.74


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture, and what is asked about it."""

    file: str
    style: str
    drawing: str
    labels: tuple[str, ...]
    expect: str
    sky: tuple[Colour, Colour]
    ground: Colour
    width: int = _HEIGHT


_SCENES: Final = (
    Scene(
        "owl.png", "noto-v1", "owl", ("fox", "bear", "seagull", "owl"), "owl",
        ((58, 70, 120), (168, 160, 196)), (72, 92, 84),
    ),
    Scene(
        "car.jpg", "fluent-flat", "automobile", ("tree", "car", "bike", "cat"), "car",
        ((150, 205, 240), (226, 242, 250)), (128, 132, 138), 256,
    ),
    Scene(
        "fox.png", "noto-v1", "fox", ("fox", "bear", "seagull", "owl"), "fox",
        ((198, 226, 190), (240, 248, 226)), (118, 160, 96),
    ),
    Scene(
        "pizza.webp", "fluent-flat", "pizza", ("pizza", "hamburger", "salad", "cake"), "pizza",
        ((250, 240, 222), (250, 246, 238)), (202, 158, 112),
    ),
    Scene(
        "cat.jpg", "fluent-flat", "cat", ("dog", "cat", "rabbit", "mouse"), "cat",
        ((226, 214, 240), (246, 240, 250)), (190, 168, 150), 224,
    ),
    Scene(
        "bike.png", "fluent-flat", "bicycle", ("car", "bus", "bike", "train"), "bike",
        ((186, 222, 246), (238, 248, 252)), (150, 186, 122), 256,
    ),
    Scene(
        "guitar.jpg", "noto-v1", "guitar", ("violin", "guitar", "drum", "piano"), "guitar",
        ((244, 226, 206), (250, 242, 230)), (168, 126, 98),
    ),
    Scene(
        "penguin.png", "noto-v1", "penguin", ("キツネ", "クマ", "カモメ", "ペンギン"), "ペンギン",
        ((168, 208, 232), (220, 238, 246)), (236, 244, 250),
    ),
)  # fmt: skip


def main() -> None:
    """Read the command line, write the pictures, `pictures.json` and `ATTRIBUTION.md`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for scene in _SCENES:
        _compose(scene).save(folder / scene.file, quality=88)
    asked = [{"file": scene.file, "candidate_labels": list(scene.labels), "expect": scene.expect} for scene in _SCENES]
    (folder / "pictures.json").write_text(json.dumps(asked, indent=2, ensure_ascii=False) + "\n", "utf-8")
    (folder / "ATTRIBUTION.md").write_text(_attribution(), "utf-8")


def _compose(scene: Scene) -> Image.Image:
    """A sky, the ground, a shadow, and the emoji standing on it; RGB."""
    width, height = scene.width * _OVERSAMPLE, _HEIGHT * _OVERSAMPLE
    horizon = round(height * _GROUND)
    blend = Image.linear_gradient("L").resize((width, height))
    top, bottom = (Image.new("RGB", (width, height), colour) for colour in scene.sky)
    picture = Image.composite(bottom, top, blend)
    canvas = ImageDraw.Draw(picture)
    canvas.rectangle((0, horizon, width, height), fill=scene.ground)
    emoji = _drawn(scene, round(height * _EMOJI))
    left, foot = (width - emoji.width) // 2, round(height * 0.9)
    shade = tuple(round(value * 0.8) for value in scene.ground)
    middle, reach = width // 2, round(emoji.width * 0.42)
    canvas.ellipse((middle - reach, foot - reach // 7, middle + reach, foot + reach // 7), fill=shade)
    picture.paste(emoji, (left, foot - emoji.height), emoji)
    return picture.resize((scene.width, _HEIGHT), Image.Resampling.LANCZOS)


def _drawn(scene: Scene, side: int) -> Image.Image:
    """The emoji without its empty border, RGBA, at most `side` wide or high."""
    svg = drawing(scene.style, scene.drawing)
    if svg is None:
        raise SystemExit(f"{scene.style} has no drawing {scene.drawing!r}")
    with TemporaryDirectory() as folder:
        file = Path(folder) / "drawing.png"
        script = Path(__file__).with_name("rasterise.cjs")
        line = json.dumps({"svg": svg, "file": str(file)})
        subprocess.run(["node", str(script), str(MODULES), str(side)], input=line, text=True, check=True)
        with Image.open(file) as drawn:
            return drawn.convert("RGBA").crop(drawn.convert("RGBA").getbbox())


def _attribution() -> str:
    lines = [f"| `{scene.file}` | {scene.drawing} | {_SOURCES[scene.style]} |" for scene in _SCENES]
    return _HEAD + "\n".join(lines) + "\n" + _LICENCES


_SOURCES: Final = {
    "noto-v1": "[Noto Emoji](https://github.com/googlefonts/noto-emoji), Google, Apache-2.0",
    "fluent-flat": "[Fluent Emoji](https://github.com/microsoft/fluentui-emoji), Microsoft, MIT",
}
_HEAD: Final = """# Where the demo's pictures come from

Each is one emoji on a background drawn by `checkpoint/demo.py`, changed in nothing but its size.

| picture | emoji | drawn by, licence |
| --- | --- | --- |
"""
_LICENCES: Final = """
Noto Emoji: Copyright Google LLC, under the Apache License, Version 2.0
(<https://www.apache.org/licenses/LICENSE-2.0>).

Fluent Emoji:

> MIT License
>
> Copyright (c) Microsoft Corporation.
>
> Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
> documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
> rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to
> permit persons to whom the Software is furnished to do so, subject to the following conditions:
>
> The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
> Software.
>
> THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
> WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
> COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
> OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""

if __name__ == "__main__":
    main()
