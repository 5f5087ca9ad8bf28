"""Removes metadata that an image's pixels do not need, so that Pillow neither parses it nor refuses the image for it.

Pillow parses metadata in Python, keeps all of it, and refuses an image with a text above Pillow's limit, although a
picture may be whole if its metadata is not. These functions keep everything that affects the pixels, and everything
that may hold the picture's orientation. They give Pillow, unchanged, any structure that they cannot parse.

The structures: JPEG from ITU-T T.81 annex B, PNG from the W3C's specification (third edition), GIF from CompuServe's
GIF89a specification.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import Final

#: A file may consist of FREE_PARTS parts (segments, chunks or blocks), one more for each row of a PNG, and one more for
#: each BYTES_PER_PART bytes. This allows for encoders that flush after each row, which write parts of some 20 bytes,
#: but not for a bomb of 12-byte chunks.
FREE_PARTS: Final = 2_000
BYTES_PER_PART: Final = 32
#: With the default NAMESHOT_MAX_PIXELS no permitted picture has more rows than this; a header may claim two billion.
MAX_ROWS: Final = 40_000
#: Pillow turns EXIF into objects of ten times its size, so the orientation in a larger part is ignored.
MAX_ORIENTATION_BYTES: Final = 1_000_000
#: At most this many parts that may hold an orientation are kept, because Pillow copies all previous EXIF for each
#: further segment of EXIF.
MAX_ORIENTATION_PARTS: Final = 8
#: Each scan of a JPEG costs a pass over its pixels, even if the image is decoded at a fraction of its size. A small
#: image may have this many scans.
MAX_JPEG_SCANS: Final = 60
#: The scans of a JPEG together may cover this many times ``max_pixels``. Encoders write about 10 scans for a
#: progressive image; libjpeg writes 18 for one with four components.
FULL_JPEG_SCANS: Final = 18

#: Application segments of a JPEG that decide how its colours are stored.
_JPEG_PIXELS: Final = {0xE0: b"JFIF", 0xEE: b"Adobe"}
_JPEG_XMP: Final = b"http://ns.adobe.com/xap/1.0/\0"
#: TEM, RST0 to RST7 and SOI consist of the marker alone.
_JPEG_LONE: Final = frozenset((0x01, *range(0xD0, 0xD9)))
_SOS, _EOI, _COM = 0xDA, 0xD9, 0xFE
#: SOF0 to SOF15, which hold the image's size, without DHT, JPG and DAC.
_JPEG_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
#: A marker that ends a scan's data: 0xFF, and then neither a stuffed zero, nor the code of RST, nor a fill byte.
_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)

_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS: Final = frozenset((b"IHDR", b"PLTE", b"tRNS"))
_PNG_TEXTS: Final = frozenset((b"tEXt", b"zTXt", b"iTXt"))
#: The texts in which Pillow looks for an orientation.
_PNG_ORIENTATION: Final = frozenset((b"exif", b"Raw profile type exif", b"XML:com.adobe.xmp"))

_GIF_EXTENSION, _GIF_CONTROL = b"!", b"\xf9"


class TooManyParts(ValueError):
    """The file consists of more parts than a file of its size may, or Pillow reads it in too many pieces."""


class TooManyScans(ValueError):
    """The JPEG has more scans than MAX_JPEG_SCANS, or they cover more pixels than FULL_JPEG_SCANS allows."""


class _Parts:
    """Counts the parts of one file."""

    def __init__(self, data: bytes, rows: int = 0) -> None:
        self._left = FREE_PARTS + rows + len(data) // BYTES_PER_PART
        self._orientation_left = MAX_ORIENTATION_PARTS

    def next(self) -> None:
        """Count one part; raise `TooManyParts` if it is one too many."""
        self._left -= 1
        if self._left < 0:
            raise TooManyParts

    def keep_orientation(self, size: int) -> bool:
        """Count a part of ``size`` bytes that may hold an orientation; return whether to keep it."""
        self._orientation_left -= size <= MAX_ORIENTATION_BYTES
        return size <= MAX_ORIENTATION_BYTES and self._orientation_left >= 0


def without_metadata(data: bytes, *, max_pixels: int) -> bytes:
    """Return a JPEG, PNG or GIF file without what its pixels and orientation do not need; any other file unchanged.

    Args:
        max_pixels: the most pixels of an image; the caller refuses larger ones.

    Raises:
        TooManyParts: see FREE_PARTS.
        TooManyScans: see MAX_JPEG_SCANS and FULL_JPEG_SCANS.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data, max_pixels)
    if data.startswith(_PNG_SIGNATURE):
        return _png(data)
    if data.startswith((b"GIF87a", b"GIF89a")):
        return _gif(data)
    return data


def _jpeg(data: bytes, max_pixels: int) -> bytes:
    view, parts = memoryview(data), _Parts(data)
    kept, at, max_scans = [view[:2]], 2, MAX_JPEG_SCANS
    xmp = view[:0]
    # Bytes before a marker are junk, which decoders skip.
    while (found := _MARKER.search(data, at)) is not None:
        parts.next()
        start, at, marker = found.start(), found.end(), data[found.end() - 1]
        if marker == _SOS:
            return b"".join((*kept, xmp, view[start : _end_of_scans(data, start, max_scans, parts)]))
        if marker in _JPEG_LONE or marker == _EOI:
            kept.append(view[start:at])
            if marker == _EOI:
                return b"".join(kept)
            continue
        end = _segment_end(data, at)
        content = data[at + 2 : end]
        if marker == 0xE1 and content.startswith(_JPEG_XMP):
            xmp = view[start:end]  # Pillow uses the last one
        elif _keeps_segment(marker, content, parts):
            kept.append(view[start:end])
        if marker in _JPEG_FRAMES:  # Pillow uses the last frame before the first scan
            max_scans = _max_scans(data[at + 3 : at + 7], max_pixels)
        at = end
    return b"".join((*kept, xmp, view[at:]))


def _end_of_scans(data: bytes, at: int, max_scans: int, parts: _Parts) -> int:
    """Return where libjpeg stops reading a JPEG whose first scan begins at ``at``.

    The caller keeps everything up to that end: in damaged data, any bytes may look like a segment, after which libjpeg
    continues, and Pillow itself parses nothing there. What follows the end, such as a phone's film or another picture,
    does not belong to the picture.
    """
    scans = 0
    while (found := _MARKER.search(data, at)) is not None:
        parts.next()
        before, at, marker = at, found.end(), data[found.end() - 1]
        if marker == _EOI:
            return at
        # While libjpeg searches for a restart marker, it skips markers below SOF0; elsewhere it refuses the picture.
        if marker not in _JPEG_LONE and marker >= min(_JPEG_FRAMES):
            at = _segment_end(data, at)
        # Scan markers inside segments count too, so that no reading of damaged data finds more scans than are counted.
        scans += data.count(b"\xff\xda", before - 1, at)
        if scans > max_scans:
            raise TooManyScans
    return len(data)


def _segment_end(data: bytes, at: int) -> int:
    return at + max(2, int.from_bytes(data[at : at + 2], "big"))  # the length includes its own two bytes


def _max_scans(size: bytes, max_pixels: int) -> int:
    """Return the most scans that an image may have, from the four bytes of height and width in its frame."""
    pixels = int.from_bytes(size[:2], "big") * int.from_bytes(size[2:], "big")
    if not 0 < pixels <= max_pixels:  # `open_image` refuses it for its size
        return MAX_JPEG_SCANS
    return min(MAX_JPEG_SCANS, FULL_JPEG_SCANS * max_pixels // pixels)


def _keeps_segment(marker: int, content: bytes, parts: _Parts) -> bool:
    if marker == 0xE1:
        return content.startswith(b"Exif\0\0") and parts.keep_orientation(len(content))
    if marker in _JPEG_PIXELS:
        return content.startswith(_JPEG_PIXELS[marker])
    return not (0xE0 <= marker <= 0xEF or marker == _COM)


def _png(data: bytes) -> bytes:
    view, parts = memoryview(data), _Parts(data, rows=min(MAX_ROWS, int.from_bytes(data[20:24], "big")))
    before, after = [view[: len(_PNG_SIGNATURE)]], list[memoryview]()
    pixels = list[memoryview]()
    at, pixels_ended = len(_PNG_SIGNATURE), False
    while at + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + size
        if end > len(data) or not name.isalpha():  # a truncated or broken chunk, which Pillow reports
            after.append(view[at:])
            break
        parts.next()
        chunk, content = view[at:end], view[at + 8 : end - 4]
        at = end
        pixels_ended = pixels_ended or (bool(pixels) and name != b"IDAT")
        if name == b"IDAT":
            if not pixels_ended:  # chunks with pixels must follow each other
                pixels.append(content)
        elif name == b"IEND":
            after.append(chunk)
            break
        elif name in _PNG_PIXELS or (_may_hold_orientation(name, content, parts) and _is_whole(chunk)):
            (after if pixels else before).append(chunk)
    return b"".join((*before, *_merged(pixels), *after))


def _merged(pixels: list[memoryview]) -> tuple[bytes, ...]:
    """Return the pieces of one IDAT chunk with all the pixels; none if there are no pixels."""
    if not pixels:
        return ()
    named = b"".join((b"IDAT", *pixels))
    return struct.pack(">I", len(named) - 4), named, struct.pack(">I", zlib.crc32(named))


def _may_hold_orientation(name: bytes, content: memoryview, parts: _Parts) -> bool:
    if name == b"eXIf":
        return parts.keep_orientation(len(content))
    if name not in _PNG_TEXTS:
        return False
    keyword, _, rest = bytes(content[:MAX_ORIENTATION_BYTES]).partition(b"\0")
    if keyword not in _PNG_ORIENTATION:
        return False
    return _unpacks_within_limit(name, rest) and parts.keep_orientation(len(content))


def _unpacks_within_limit(name: bytes, rest: bytes) -> bool:
    """Return whether Pillow accepts a text, given without its keyword; for any other text it refuses the image."""
    if name == b"zTXt" and rest[:1] == b"\0":  # the only method of compression
        packed = rest[1:]
    elif name == b"iTXt" and rest[:1] == b"\1":  # compressed; method, language, translated keyword follow
        packed = rest[2:].split(b"\0", 2)[-1]
    else:
        return name != b"zTXt"
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(packed, MAX_ORIENTATION_BYTES)
    except zlib.error:
        return True  # Pillow ignores a text that it cannot decompress
    return not unpacker.unconsumed_tail


def _is_whole(chunk: memoryview) -> bool:
    return zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")


def _gif(data: bytes) -> bytes:
    view, parts = memoryview(data), _Parts(data)
    at = 13 + (3 << (data[10] & 7) + 1 if len(data) > 10 and data[10] & 0x80 else 0)
    kept = [view[:at]]
    while data[at : at + 1] == _GIF_EXTENSION:
        start, at = at, at + 2
        while (size := data[at] if at < len(data) else 0) != 0:
            parts.next()
            at += 1 + size
        at += 1
        if data[start + 1 : start + 2] == _GIF_CONTROL:
            kept.append(view[start:at])
    return b"".join((*kept, view[at:]))
