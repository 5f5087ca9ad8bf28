"""Leaves out of an image file what its pixels do not need, so that Pillow neither parses it nor fails over it.

Pillow parses metadata in Python, keeps all of it, and fails over texts that are too long for it; a picture is not
damaged because its metadata is. What is kept: everything that decides about pixels, and what may hold the picture's
orientation. A structure that these functions do not understand goes to Pillow as it is, which then judges it.

The structures: JPEG from ITU-T T.81 annex B, PNG from the W3C's specification (third edition), GIF from CompuServe's
GIF89a specification.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import Final

#: A file may consist of FREE_PARTS parts (segments, chunks or blocks), one more for each row of a PNG, and one more for
#: each BYTES_PER_PART bytes: encoders that flush after each row write parts of some 20 bytes, and a bomb of 12-byte
#: chunks runs out.
FREE_PARTS: Final = 2_000
BYTES_PER_PART: Final = 32
#: More rows than a picture has whose pixels and shape are within their limits; a header may claim two billion.
MAX_ROWS: Final = 40_000
#: Pillow turns EXIF into objects of ten times its size: an orientation in more than this is ignored.
MAX_ORIENTATION_BYTES: Final = 1_000_000
#: As many parts that may hold an orientation are kept. Pillow copies all EXIF for each further segment of it.
MAX_ORIENTATION_PARTS: Final = 8
#: Each scan of a JPEG costs a pass over its pixels, even if the image is decoded at a fraction of its size. A small
#: image may have this many.
MAX_JPEG_SCANS: Final = 60
#: The scans of a JPEG together may cover this many times the most pixels of an image. For a progressive image encoders
#: write about 10 scans, and libjpeg 18 if it has four components.
FULL_JPEG_SCANS: Final = 18

#: Application segments of a JPEG that decide how its colours are stored.
_JPEG_PIXELS: Final = {0xE0: b"JFIF", 0xEE: b"Adobe"}
_JPEG_XMP: Final = b"http://ns.adobe.com/xap/1.0/\0"
#: TEM, RST0 to RST7 and SOI consist of the marker alone.
_JPEG_LONE: Final = frozenset((0x01, *range(0xD0, 0xD9)))
_SOS, _EOI, _COM = 0xDA, 0xD9, 0xFE
#: SOF0 to SOF15, which hold the image's size, without DHT, JPG and DAC.
_JPEG_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
#: In the data of a scan only a marker that is neither a stuffed zero, nor RST, nor a fill byte ends it.
_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)

_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS: Final = frozenset((b"IHDR", b"PLTE", b"tRNS"))
_PNG_TEXTS: Final = frozenset((b"tEXt", b"zTXt", b"iTXt"))
#: The texts in which Pillow looks for an orientation.
_PNG_ORIENTATION: Final = frozenset((b"exif", b"Raw profile type exif", b"XML:com.adobe.xmp"))

_GIF_EXTENSION, _GIF_CONTROL = b"!", b"\xf9"


class TooManyParts(ValueError):
    """The file consists of more parts than a file of its size may."""


class TooManyScans(ValueError):
    """The JPEG has more scans than MAX_JPEG_SCANS, or they cover more pixels than FULL_JPEG_SCANS allows."""


class _Parts:
    """Counts the parts of one file."""

    def __init__(self, data: bytes, rows: int = 0) -> None:
        self._left = FREE_PARTS + rows + len(data) // BYTES_PER_PART
        self._orientation_left = MAX_ORIENTATION_PARTS

    def next(self) -> None:
        """Count one part; raises `TooManyParts`."""
        self._left -= 1
        if self._left < 0:
            raise TooManyParts

    def keep_orientation(self, size: int) -> bool:
        """Whether to keep a part of ``size`` bytes that may hold an orientation."""
        self._orientation_left -= size <= MAX_ORIENTATION_BYTES
        return size <= MAX_ORIENTATION_BYTES and self._orientation_left >= 0


def without_metadata(data: bytes, *, max_pixels: int) -> bytes:
    """Return an image file without what its pixels and its orientation do not need.

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
    """Return where a JPEG ends for libjpeg, whose first scan begins here.

    Nothing is left out from here on: in damaged data any bytes may look like a segment, behind which libjpeg goes on,
    and Pillow parses nothing here. What follows the end is not the picture: a phone's film, another picture.
    """
    scans = 0
    while (found := _MARKER.search(data, at)) is not None:
        parts.next()
        before, at, marker = at, found.end(), data[found.end() - 1]
        if marker == _EOI:
            return at
        # At a restart libjpeg passes over markers below SOF0; elsewhere it refuses the picture over them.
        if marker not in _JPEG_LONE and marker >= min(_JPEG_FRAMES):
            at = _segment_end(data, at)
        # Those in segments count too: whatever a decoder makes of damaged data, it finds no more scans than this.
        scans += data.count(b"\xff\xda", before - 1, at)
        if scans > max_scans:
            raise TooManyScans
    return len(data)


def _segment_end(data: bytes, at: int) -> int:
    return at + max(2, int.from_bytes(data[at : at + 2], "big"))  # the length counts its own two bytes


def _max_scans(size: bytes, max_pixels: int) -> int:
    """Return the most scans of an image with this height and width, as its frame holds them."""
    pixels = int.from_bytes(size[:2], "big") * int.from_bytes(size[2:], "big")
    if not 0 < pixels <= max_pixels:  # it is refused for its size
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
        if end > len(data) or not name.isalpha():  # cut off or broken, which Pillow notices
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
    """Return one IDAT chunk with the content of all."""
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
    """Whether a text, without its keyword, is one that Pillow unpacks: it refuses the image over others."""
    if name == b"zTXt" and rest[:1] == b"\0":  # the one method of compression
        packed = rest[1:]
    elif name == b"iTXt" and rest[:1] == b"\1":  # compressed; then the method, a language, a translated keyword
        packed = rest[2:].split(b"\0", 2)[-1]
    else:
        return name != b"zTXt"
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(packed, MAX_ORIENTATION_BYTES)
    except zlib.error:
        return True  # which Pillow passes over
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
