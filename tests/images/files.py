"""Makes valid and damaged image files."""

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
    """Return signature and IHDR. Colour types: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGB and alpha."""
    return PNG_SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


def png(width: int, height: int, rows: bytes, depth: int = 8, colour: int = 2, *extra: bytes) -> bytes:
    """Return a PNG made from raw, unfiltered rows, given without filter bytes."""
    row_bytes = len(rows) // height
    filtered = b"".join(b"\0" + rows[start : start + row_bytes] for start in range(0, len(rows), row_bytes))
    header = png_header(width, height, depth, colour) + b"".join(extra)
    return header + chunk(b"IDAT", zlib.compress(filtered)) + chunk(b"IEND")


def flat_png(width: int, height: int) -> bytes:
    """Return a 1-bit PNG of zeros, which has the fewest bytes per pixel."""
    compressor = zlib.compressobj(9)
    row = b"\0" * (1 + (width + 7) // 8)
    data = b"".join(compressor.compress(row) for _ in range(height)) + compressor.flush()
    return png_header(width, height, 1, 0) + chunk(b"IDAT", data) + chunk(b"IEND")


def deflated(byte: bytes, count: int) -> bytes:
    """Return data that `zlib` unpacks to ``count`` equal bytes, whole millions; compress a million only once."""
    million = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    block = million.compress(byte * 1_000_000) + million.flush(zlib.Z_FULL_FLUSH)
    checksum = struct.pack(">I", zlib.adler32(byte * count))
    return b"\x78\x9c" + block * (count // 1_000_000) + zlib.compressobj(wbits=-zlib.MAX_WBITS).flush() + checksum


def photo(width: int = 64, height: int = 48) -> Image.Image:
    """Return a picture, partly smooth and partly noisy, that no rotation or reflection maps onto itself."""
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(7).integers(0, 60, (height, width))
    planes = [x * 255 // width, y * 255 // height, (x * y) % 190 + noise]
    return Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8))


def jpeg_with_segments(*segments: bytes) -> bytes:
    """Return a small JPEG with the segments right after its start marker."""
    data = encoded(photo(), "JPEG")
    return data[:2] + b"".join(segments) + data[2:]


def tiff(*entries: tuple[int, int, int, bytes], behind: bytes = b"") -> bytes:
    """Return EXIF without its name: entries of tag, type, count and value or offset; then the data at the offsets."""
    packed = b"".join(struct.pack(">HHI", *entry[:3]) + entry[3] for entry in entries)
    return b"MM\0*\0\0\0\x08" + struct.pack(">H", len(entries)) + packed + b"\0" * 4 + behind


def gif_offset() -> bytes:
    """Return a GIF with a red 4x4 frame at (2, 2) of an 8x8 canvas with a green background."""
    data = encoded(Image.new("RGB", (4, 4), (255, 0, 0)).quantize(2), "GIF")
    frame = data.index(b",", 13)
    # The background is entry 1 of a palette of two colours.
    palette = bytes((255, 0, 0, 0, 255, 0))
    header = data[:6] + struct.pack("<HHBBB", 8, 8, 0x80, 1, 0) + palette
    return header + data[frame : frame + 1] + struct.pack("<HH", 2, 2) + data[frame + 5 :]


def many_frames(kind: str, count: int) -> bytes:
    """Return an animation of ``count`` frames of 8x8, the first red, all others blue."""
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
    if kind == "WEBP":
        second = data.rindex(b"ANMF")
        body = data[8:second] + data[second:] * (count - 1)
        return b"RIFF" + struct.pack("<I", len(body)) + body
    if kind == "PNG":
        second, end = data.rindex(b"fcTL") - 4, data.rindex(b"IEND") - 4
        control = data.index(b"acTL") - 4
        said = chunk(b"acTL", struct.pack(">II", count, 0))
        return data[:control] + said + data[control + 20 : second] + data[second:end] * (count - 1) + data[end:]
    second = data.rindex(b"!\xf9")
    return data[:second] + data[second:-1] * (count - 1) + b";"


def segment(marker: int, data: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data
