"""The pictures: fetched with npm, decoded once, kept as one array per style. `python -m checkpoint.data`."""

import io
import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from checkpoint.concepts import bare_key, read_concepts

DATA: Final = Path(__file__).with_name(".data")
MODULES: Final = DATA / "node_modules"
# What the picture packages of emoji-datasource hold; the model reads 48, so augmentation has pixels to spare.
SIDE: Final = 64

# Exact versions: another version of a package has other pictures, and so other weights.
PACKAGES: Final = (
    "emoji-datasource-google@16.0.0",
    "emoji-datasource-twitter@16.0.0",
    "emoji-datasource-facebook@16.0.0",
    "@iconify-json/noto-v1@1.2.5",
    "@iconify-json/fluent-emoji-flat@1.2.6",
    "@iconify-json/emojione@1.2.3",
    "@lobehub/fluent-emoji-3d@1.1.0",
    "unicode-emoji-json@0.9.0",
    "@resvg/resvg-js@2.6.2",
)
TRAINING: Final = ("noto", "noto-v1", "twemoji", "fluent-flat", "fluent-3d")
# Watched while training, to choose settings by; neither trained on nor bundled.
DEVELOPMENT: Final = "emojione"
# Looked at only to report figures; neither trained on nor bundled, and no setting was chosen by it.
UNSEEN: Final = "facebook"

_RASTER: Final = {
    "noto": "emoji-datasource-google/img/google/64",
    "twemoji": "emoji-datasource-twitter/img/twitter/64",
    "facebook": "emoji-datasource-facebook/img/facebook/64",
    "fluent-3d": "@lobehub/fluent-emoji-3d/assets",
}
_VECTOR: Final = {
    "noto-v1": "@iconify-json/noto-v1",
    "fluent-flat": "@iconify-json/fluent-emoji-flat",
    "emojione": "@iconify-json/emojione",
}
# Drawings of noto-v1 that the rasteriser gives up on.
_UNDRAWABLE: Final = {"lady-beetle", "hot-beverage", "cocktail-glass", "bullet-train", "ambulance"}

Pixels = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Pictures:
    """One style: uint8 (n, SIDE, SIDE, 4), straight alpha; and int64 (n,), the place of each concept in the list."""

    pixels: Pixels
    concepts: Numbers


def load(style: str) -> Pictures:
    """The pictures of a style, from the file that `prepare` wrote."""
    with np.load(DATA / f"{style}.npz") as stored:
        return Pictures(stored["pixels"], stored["concepts"])


def drawing(style: str, name: str) -> str | None:
    """The SVG of an icon of a drawn style, or None if the style has no icon of that name."""
    icons = _icons(style)
    alias = icons.get("aliases", {}).get(name, {}).get("parent")
    entry = icons["icons"].get(name) or icons["icons"].get(alias)
    if entry is None:
        return None
    width, height = (entry.get(side, icons[side]) for side in ("width", "height"))
    head = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {head} viewBox="0 0 {width} {height}">{entry["body"]}</svg>'


@cache
def _icons(style: str) -> Any:
    return json.loads((MODULES / _VECTOR[style] / "icons.json").read_text("utf-8"))


def prepare() -> None:
    """Fetch the packages if need be, then write one array per style."""
    if not (MODULES / "@resvg").is_dir():
        DATA.mkdir(exist_ok=True)
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--save-exact"]
        subprocess.run(["npm", "install", *options, "--prefix", str(DATA), *PACKAGES], check=True)
    concepts = read_concepts()
    wanted = {key: number for number, concept in enumerate(concepts) for key in concept.keys}
    for style in (*_RASTER, *_VECTOR):
        found = dict(_raster(style, wanted) if style in _RASTER else _vector(style, wanted))
        _report(style, sorted(set(range(len(concepts))) - {wanted[key] for key in found}), len(found))
        keys = sorted(found)
        np.savez(
            DATA / f"{style}.npz",
            pixels=np.stack([found[key] for key in keys]),
            concepts=np.array([wanted[key] for key in keys], dtype=np.int64),
        )


def _raster(style: str, wanted: Mapping[str, int]) -> Iterator[tuple[str, Pixels]]:
    for file in sorted((MODULES / _RASTER[style]).iterdir()):
        key = bare_key(file.stem)
        if key in wanted and file.suffix in {".png", ".webp"}:
            yield key, _decode(file.read_bytes())


def _vector(style: str, wanted: Mapping[str, int]) -> Iterator[tuple[str, Pixels]]:
    """Draw the SVGs of an Iconify package, whose icons carry the Unicode names of their emoji."""
    described = json.loads((MODULES / "unicode-emoji-json/data-by-emoji.json").read_text("utf-8"))
    drawings = DATA / style
    drawings.mkdir(exist_ok=True)
    lines: list[str] = []
    for emoji, entry in described.items():
        key = bare_key("-".join(f"{ord(character):x}" for character in emoji))
        name = str(entry["slug"]).replace("_", "-")
        if key not in wanted or (style == "noto-v1" and name in _UNDRAWABLE):
            continue
        svg = drawing(style, name)
        if svg is not None:
            lines.append(json.dumps({"svg": svg, "file": str(drawings / f"{key}.png")}))
    script = Path(__file__).with_name("rasterise.cjs")
    # Twice the width, so that both kinds of source are brought to SIDE by the same filter.
    command = ["node", str(script), str(MODULES), str(2 * SIDE)]
    subprocess.run(command, input="\n".join(lines), text=True, check=True)
    for file in sorted(drawings.glob("*.png")):
        yield file.stem, _decode(file.read_bytes())


def _decode(encoded: bytes) -> Pixels:
    """uint8 (SIDE, SIDE, 4), straight alpha, the picture's whole side used."""
    with Image.open(io.BytesIO(encoded)) as picture:
        coloured = picture.convert("RGBA")
    if coloured.size != (SIDE, SIDE):
        coloured = coloured.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(coloured)


def _report(style: str, missing: Sequence[int], found: int) -> None:
    names = ", ".join(read_concepts()[number].english[0] for number in missing)
    print(f"{style}: {found} pictures; without a picture: {names or 'none'}")


if __name__ == "__main__":
    prepare()
