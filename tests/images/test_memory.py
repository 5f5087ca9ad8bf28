"""A worker's memory stays within its bound, whatever images it gets and however many at once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.images.corpus import BOMBS, DAMAGED, FOREIGN, LADEN, SLOW, THIN
from tests.images.files import encoded, flat_png
from tests.images.memory_probe import CONCURRENCY, MAX_PIXELS
from worker.engine.capacity import DECODING_BYTES_PER_PIXEL
from worker.runtime.allocator import ARENAS, KEPT_BYTES_PER_ARENA

SIDE = 3_400
#: Freed memory that the allocator keeps, and the memory of the threads.
SLACK_BYTES = KEPT_BYTES_PER_ARENA * ARENAS + 20_000_000
#: How many copies of a file Pillow, a decoder or the search for metadata may make.
COPIES_OF_A_FILE = 4


def turned() -> bytes:
    tags = Image.Exif()
    tags[0x0112] = 6
    return tags.tobytes()


def colour(mode: str = "RGB") -> Image.Image:
    return Image.new("RGB", (SIDE, SIDE), (200, 30, 90)).convert(mode)


#: Small files with the maximum of pixels, in the formats that need the most memory. Each is made when a test first
#: needs it, because encoding takes seconds.
LARGEST: dict[str, Callable[[], bytes]] = {
    name: cache(make)
    for name, make in {
        "WebP": lambda: encoded(colour(), "WEBP", lossless=True, quality=0, method=0),
        "WebP, turned": lambda: encoded(colour(), "WEBP", lossless=True, quality=0, method=0, exif=turned()),
        "JPEG, progressive CMYK, turned": lambda: encoded(colour("CMYK"), "JPEG", progressive=True, exif=turned()),
        "JPEG, progressive": lambda: encoded(colour(), "JPEG", progressive=True, subsampling=0),
        "PNG, RGBA, turned": lambda: encoded(colour("RGBA"), "PNG", exif=turned()),
        "PNG, 16-bit grey, turned": lambda: encoded(Image.new("I;16", (SIDE, SIDE), 40_000), "PNG", exif=turned()),
        "PNG, 1 bit": lambda: flat_png(SIDE, SIDE),
        "GIF": lambda: encoded(colour(), "GIF"),
        "HEIC, turned": lambda: encoded(
            colour("RGBA"), "HEIF", chroma=444, enc_params={"preset": "ultrafast"}, exif=turned()
        ),
        "AVIF, turned": lambda: encoded(colour("RGBA"), "AVIF", subsampling="4:4:4", speed=10, exif=turned()),
    }.items()
}


def growth(files: Mapping[str, bytes], folder: Path, copies: int = 1) -> tuple[int, list[str]]:
    """Return how much the files add to a worker's peak of memory, in bytes, and the code of each."""
    for number, data in enumerate(files.values()):
        for copy in range(copies):
            (folder / f"{copy:02}-{number}").write_bytes(data)
    command = [sys.executable, "-W", "ignore", "-m", "tests.images.memory_probe", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found["growth_bytes"], found["codes"]


@pytest.mark.thorough  # `make test` decodes each of these files once, among the hostile files
@pytest.mark.parametrize("name", LARGEST)
def test_many_of_the_largest_images_at_once_stay_within_the_memory_for_decoding(name: str, tmp_path: Path) -> None:
    grown_bytes, codes = growth({name: LARGEST[name]()}, tmp_path, copies=CONCURRENCY)
    assert set(codes) == {"ok"}
    assert grown_bytes < DECODING_BYTES_PER_PIXEL * MAX_PIXELS + SLACK_BYTES


def test_hostile_files_need_no_more_memory_than_decoding_may_and_a_few_copies_of_the_files(tmp_path: Path) -> None:
    corpora = FOREIGN, DAMAGED, BOMBS, THIN, SLOW, LADEN, {name: make() for name, make in LARGEST.items()}
    files = {name: data for corpus in corpora for name, data in corpus.items()}
    grown_bytes, codes = growth(files, tmp_path)
    # Each file occurs once, so these are the largest ones that can be in flight together.
    in_flight_bytes = sum(sorted(map(len, files.values()))[-CONCURRENCY:])
    assert {"ok", "undecodable", "unsupported_format", "too_many_pixels", "bad_aspect_ratio"} == set(codes)
    assert grown_bytes < DECODING_BYTES_PER_PIXEL * MAX_PIXELS + COPIES_OF_A_FILE * in_flight_bytes + SLACK_BYTES
