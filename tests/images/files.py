"""Image files, good and bad, made from nothing."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
Pixels = Any


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, data: bytes = b"", crc_error: int = 0) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data) ^ crc_error)


def png_header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    """Signature and IHDR. Colour types: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGB and alpha."""
    return PNG_SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


def png(width: int, height: int, rows: bytes, depth: int = 8, colour: int = 2, *extra: bytes) -> bytes:
    """A PNG from its raw, unfiltered rows, without their filter bytes."""
    row_bytes = len(rows) // height
    filtered = b"".join(b"\0" + rows[start : start + row_bytes] for start in range(0, len(rows), row_bytes))
    header = png_header(width, height, depth, colour) + b"".join(extra)
    return header + chunk(b"IDAT", zlib.compress(filtered)) + chunk(b"IEND")


def flat_png(width: int, height: int) -> bytes:
    """A 1-bit PNG of zeros: as few bytes for as many pixels as can be."""
    compressor = zlib.compressobj(9)
    row = b"\0" * (1 + (width + 7) // 8)
    data = b"".join(compressor.compress(row) for _ in range(height)) + compressor.flush()
    return png_header(width, height, 1, 0) + chunk(b"IDAT", data) + chunk(b"IEND")


def photo(width: int = 64, height: int = 48) -> Image.Image:
    """A picture that is smooth in places, noisy in others, and that no rotation or reflection maps onto itself."""
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(7).integers(0, 60, (height, width))
    planes = [x * 255 // width, y * 255 // height, (x * y) % 190 + noise]
    return Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8))


def jpeg_with_segments(*segments: bytes) -> bytes:
    """A small JPEG with these segments right after its start marker."""
    data = encoded(photo(), "JPEG")
    return data[:2] + b"".join(segments) + data[2:]


def segment(marker: int, data: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data
