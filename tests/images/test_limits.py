"""What is refused before, during and after decoding; with which code, at which cost in time and memory."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageFile

from producer.errors import JobFailed
from tests.images.conftest import code_of
from tests.images.files import PNG_SIGNATURE, chunk, encoded, flat_png, jpeg_with_segments, photo, png_header, segment
from worker.images import decode, open_image, prepare_pillow

#: Above a decoder that has decoded a small image; the largest file here has 7 MB itself.
MEMORY_BOUND_MB = 30

FOREIGN: dict[str, bytes] = {
    "HTML": b"<!doctype html><html><body><img src='a.png'></body></html>",
    "JSON": b'{"error": "not found"}',
    "text": b"Not found",
    "zeros": b"\0" * 10_000,
    "PDF": b"%PDF-1.7\n1 0 obj<<>>endobj\n%%EOF",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "SVG with an entity bomb": b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a "aaaa">]><svg>&a;</svg>',
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n",
    "EPS with a DOS header": b"\xc5\xd0\xd3\xc6" + struct.pack("<6I", 32, 99, 0, 0, 0, 0) + b"\xff\xff%!PS-Adobe-3.0",
    "BMP": encoded(photo(), "BMP"),
    "TIFF": encoded(photo(), "TIFF"),
    "ICO": encoded(photo(32, 32), "ICO"),
    "PPM": encoded(photo(), "PPM"),
    "TGA": encoded(photo(), "TGA"),
    "PCX": encoded(photo(), "PCX"),
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjp2 ",
    "AVIF": b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miafMA1B",
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "JPEG XL": b"\xff\x0a" + b"\0" * 100,
    "PSD": b"8BPS\0\x01" + b"\0" * 100,
    "FITS": b"SIMPLE  =                    T" + b" " * 2_850,
    "ICNS": b"icns" + b"\0" * 100,
    "ZIP": b"PK\x03\x04" + b"\0" * 100,
    "RIFF that is sound": b"RIFF\x24\0\0\0WAVEfmt ",
    "one byte": b"\xff",
    "random": random.Random(3).randbytes(10_000),
}

JPEG, PNG, GIF, WEBP = (encoded(photo(160, 120), kind) for kind in ("JPEG", "PNG", "GIF", "WEBP"))

DAMAGED: dict[str, bytes] = {
    "JPEG, half": JPEG[: len(JPEG) // 2],
    "JPEG, header only": JPEG[: JPEG.index(b"\xff\xda") + 14],
    "JPEG, start marker only": JPEG[:3],
    "JPEG, no scan": JPEG[: JPEG.index(b"\xff\xda")],
    "PNG, half": PNG[: len(PNG) // 2],
    "PNG, signature only": PNG_SIGNATURE,
    "PNG, header only": png_header(8, 8),
    "PNG, no data": png_header(8, 8) + chunk(b"IEND"),
    "PNG, empty data": png_header(8, 8) + chunk(b"IDAT") + chunk(b"IEND"),
    "PNG, broken checksum": PNG_SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0), 1),
    "PNG, flipped bit in the data": PNG[:60] + bytes([PNG[60] ^ 1]) + PNG[61:],
    "PNG, no width": png_header(0, 8) + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND"),
    "PNG, 0x0": png_header(0, 0) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND"),
    "PNG, impossible depth": png_header(8, 8, 7, 9) + chunk(b"IEND"),
    "PNG, text that unpacks to 100 MB": png_header(8, 8)
    + chunk(b"zTXt", b"a\0\0" + zlib.compress(b"\0" * 100_000_000))
    + PNG[33:],
    "GIF, half": GIF[: len(GIF) // 2],
    "GIF, header only": GIF[:13],
    "WebP, half": WEBP[: len(WEBP) // 2],
    "WebP, header only": WEBP[:20],
}  # fmt: skip


def webp_claiming(width: int, height: int) -> bytes:
    """An extended WebP whose canvas is said to be this large."""
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + canvas + b"ANIM" + struct.pack("<I", 6) + b"\0" * 6
    frame = b"\0" * 12 + b"\0" * 4 + WEBP[12:]
    body += b"ANMF" + struct.pack("<I", len(frame)) + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def gif_claiming(width: int, height: int) -> bytes:
    return GIF[:6] + struct.pack("<HH", width, height) + GIF[10:]


def jpeg_claiming(width: int, height: int) -> bytes:
    frame = JPEG.index(b"\xff\xc0")
    return JPEG[: frame + 5] + struct.pack(">HH", height, width) + JPEG[frame + 9 :]


BOMBS: dict[str, bytes] = {
    "PNG, 2^31-1 squared": png_header(2**31 - 1, 2**31 - 1) + chunk(b"IDAT") + chunk(b"IEND"),
    "PNG, 20000x20000": flat_png(20_000, 20_000),
    "PNG, 13000x13000": flat_png(13_000, 13_000),
    "PNG, 9400x9400": flat_png(9_400, 9_400),
    "PNG, one pixel too many": png_header(16_666_667, 3) + chunk(b"IDAT") + chunk(b"IEND"),
    "GIF, 65535x65535": gif_claiming(65_535, 65_535),
    "JPEG, 65000x65000": jpeg_claiming(65_000, 65_000),
    "WebP, 16383x16383": webp_claiming(16_383, 16_383),
}

THIN: dict[str, bytes] = {
    "1x20000": flat_png(1, 20_000),
    "20000x1": flat_png(20_000, 1),
    "65500x1 JPEG": encoded(Image.new("L", (65_500, 1)), "JPEG"),
    "31x1": flat_png(31, 1),
    "301x10": flat_png(301, 10),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_other_formats_are_unsupported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: Any, **__: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", started)
    assert code_of(FOREIGN[name]) == "unsupported_format"


def test_no_bytes_are_empty() -> None:
    assert code_of(b"") == "empty"


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_images_are_undecodable(name: str) -> None:
    assert code_of(DAMAGED[name]) == "undecodable"


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_by_their_header_at_no_cost(name: str) -> None:
    started_s = time.thread_time()
    assert code_of(BOMBS[name]) == "too_many_pixels"
    assert time.thread_time() - started_s < 0.5


def test_the_limit_itself_is_allowed() -> None:
    data = flat_png(200, 100)
    assert code_of(data, max_pixels=20_000) == "ok"
    assert code_of(data, max_pixels=19_999) == "too_many_pixels"


@pytest.mark.parametrize("name", THIN)
def test_thin_images_are_refused_since_resizing_would_blow_them_up(name: str) -> None:
    assert code_of(THIN[name]) == "bad_aspect_ratio"


@pytest.mark.parametrize("size", [(30, 1), (1, 30), (300, 10), (1, 1)])
def test_thirty_to_one_is_allowed(size: tuple[int, int]) -> None:
    assert code_of(flat_png(*size)) == "ok"


def test_opening_reads_the_header_only_and_says_how_many_pixels_will_come() -> None:
    opened = open_image(flat_png(5_000, 5_000), max_pixels=50_000_000)
    assert opened.pixels == 25_000_000
    # Damage in the pixels shows only when they are decoded.
    damaged = open_image(DAMAGED["JPEG, half"], max_pixels=50_000_000)
    assert damaged.pixels == 160 * 120


SLOW: dict[str, bytes] = {
    "PNG of empty chunks": png_header(8, 8) + chunk(b"abCd") * 400_000,
    "PNG of text": png_header(8, 8) + chunk(b"tEXt", b"a\0b") * 300_000,
    "JPEG of comments": jpeg_with_segments(segment(0xFE, b"") * 1_200_000),
    "JPEG of EXIF headers": jpeg_with_segments(segment(0xE1, b"Exif\0\0") * 500_000),
    "JPEG of fill bytes": jpeg_with_segments(b"\xff" * 5_000_000),
    "JPEG of garbage": jpeg_with_segments(b"\0" * 5_000_000),
    "GIF of comments": GIF[:781] + b"\x21\xfe" + b"\xffx" * 2_000_000 + GIF[781:],
    "GIF of zeros": GIF[:781] + b"\0" * 5_000_000 + GIF[781:],
    "GIF of extensions": GIF[:781] + b"\x21\xf9\x04\0\0\0\0\0" * 600_000 + GIF[781:],
}


@pytest.mark.parametrize("name", SLOW)
def test_files_made_to_be_parsed_for_ever_are_not(name: str) -> None:
    started_s = time.thread_time()
    code_of(SLOW[name])
    assert time.thread_time() - started_s < 1.5


def test_a_progressive_jpeg_of_hundreds_of_scans_is_refused() -> None:
    data = encoded(Image.new("L", (2_000, 2_000)), "JPEG", progressive=True)
    last_scan = data[data.rindex(b"\xff\xda") : -2]
    assert code_of(data) == "ok"
    assert code_of(data[:-2] + last_scan * 500 + data[-2:]) == "undecodable"


def test_ten_thousand_frames_cost_no_more_than_one() -> None:
    frame = encoded(Image.new("P", (8, 8)), "GIF")
    body = frame[frame.index(b",") : -1]
    data = frame[:-1] + body * 10_000 + b";"
    started_s = time.thread_time()
    assert code_of(data) == "ok"
    assert time.thread_time() - started_s < 0.5


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError("CANARY"), "out_of_memory"),
        (Image.DecompressionBombError("CANARY"), "too_many_pixels"),
        (struct.error("CANARY"), "undecodable"),
        (OverflowError("CANARY"), "undecodable"),
        (RecursionError("CANARY"), "undecodable"),
        (SyntaxError("CANARY"), "undecodable"),
        (OSError("CANARY"), "undecodable"),
        (KeyError("CANARY"), "undecodable"),
        (ZeroDivisionError("CANARY"), "undecodable"),
        (UserWarning("CANARY"), "undecodable"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("stage", ["load", "convert"])
def test_whatever_a_decoder_raises_becomes_a_failure_without_its_text(
    error: Exception, code: str, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(ImageFile.ImageFile if stage == "load" else Image.Image, stage, broken)
    with pytest.raises(JobFailed) as caught:
        decode(GIF, max_pixels=50_000_000)
    assert caught.value.code == code
    assert caught.value.retryable == (code == "out_of_memory")
    assert "CANARY" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("original", [JPEG, PNG, GIF, WEBP], ids=["JPEG", "PNG", "GIF", "WebP"])
def test_mutated_images_only_ever_give_an_image_or_a_failure(original: bytes) -> None:
    shuffle = random.Random(11)
    codes = set()
    for _ in range(150):
        data = bytearray(original)
        for _ in range(shuffle.choice((1, 3, 30))):
            data[shuffle.randrange(len(data))] = shuffle.randrange(256)
        codes.add(code_of(bytes(data[: shuffle.choice((len(data), shuffle.randrange(len(data)) + 1))]), 1_000_000))
    assert codes <= {"ok", "undecodable", "unsupported_format", "too_many_pixels", "bad_aspect_ratio"}
    assert len(codes) > 1


def test_pillow_that_accepts_truncated_images_is_not_worked_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(RuntimeError, match="LOAD_TRUNCATED_IMAGES"):
        prepare_pillow(50_000_000)


def test_memory_stays_within_bounds_over_the_whole_corpus(tmp_path: Path) -> None:
    for number, data in enumerate(data for corpus in (FOREIGN, DAMAGED, BOMBS, THIN, SLOW) for data in corpus.values()):
        (tmp_path / str(number)).write_bytes(data)
    (tmp_path / "harmless").write_bytes(PNG)
    # In a process of its own: a peak is for life. (ru_maxrss would be no less than that of the process it came from.)
    script = (
        "import pathlib, re, sys\n"
        "from producer.errors import JobFailed\n"
        "from worker.images import decode\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', pathlib.Path('/proc/self/status').read_text())[1])\n"
        "def code_of(file):\n"
        "    try:\n"
        "        decode(file.read_bytes(), max_pixels=50_000_000)\n"
        "    except JobFailed as failure:\n"
        "        return failure.code\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "code_of(folder / 'harmless')\n"
        "before = peak()\n"
        "print(*(code_of(file) for file in folder.iterdir()), file=sys.stderr)\n"
        "print(peak() - before)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", script, str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(found.stdout) / 1024 < MEMORY_BOUND_MB, found.stderr
