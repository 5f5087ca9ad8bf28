"""A tiny file that takes long to decode."""

import io

from PIL import Image


def slow_webp(number: int) -> bytes:
    """Return a file of 36 bytes that decodes to ten million pixels; each number gives another file."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (number, 0, 0)).save(file, "WEBP", lossless=True, quality=0, method=0)
    data = bytearray(file.getvalue())
    # A single colour takes no bits per pixel, so the file stays valid with a larger width and height, 14 bits each.
    at = data.index(b"VP8L") + 9
    head = int.from_bytes(data[at : at + 4], "little") >> 28 << 28 | 2_799 << 14 | 3_499
    data[at : at + 4] = head.to_bytes(4, "little")
    return bytes(data)
