"""Hostile and damaged files, by the code with which the worker refuses them."""

from __future__ import annotations

import gzip
import random
import struct
import zlib

from PIL import Image

from tests.images.files import (
    PNG_SIGNATURE,
    chunk,
    deflated,
    encoded,
    flat_png,
    jpeg_with_segments,
    photo,
    png_header,
    segment,
    tiff,
)
from worker.decoding.heif import register_heif

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
    "JPEG XL": b"\xff\x0a" + b"\0" * 100,
    "PSD": b"8BPS\0\x01" + b"\0" * 100,
    "FITS": b"SIMPLE  =                    T" + b" " * 2_850,
    "ICNS": b"icns" + b"\0" * 100,
    "SVGZ": gzip.compress(b'<svg xmlns="http://www.w3.org/2000/svg"/>'),
    "TIFF of many pages": encoded(photo(8, 8), "TIFF", save_all=True, append_images=[photo(8, 8)] * 50),
    "gzip of FITS": gzip.compress(b"SIMPLE  =                    T" + b" " * 1_000_000),
    "DDS": b"DDS " + struct.pack("<I", 124) + b"\0" * 120,
    "WMF": b"\xd7\xcd\xc6\x9a" + b"\0" * 100,
    "JPEG XL in a box": b"\0\0\0\x0cJXL \r\n\x87\n",
    "PNG behind spaces": b"  " + encoded(photo(), "PNG"),
    "JPEG behind a byte order mark": b"\xef\xbb\xbf" + encoded(photo(), "JPEG"),
    "ZIP": b"PK\x03\x04" + b"\0" * 100,
    "RIFF that is sound": b"RIFF\x24\0\0\0WAVEfmt ",
    "one byte": b"\xff",
    "random": random.Random(3).randbytes(10_000),
}

register_heif()
JPEG, PNG, GIF, WEBP, AVIF, HEIC = (
    encoded(photo(160, 120), kind) for kind in ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "HEIF")
)

#: A text just below Pillow's own limits for a text and for a file.
LONG_TEXT = chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(("\N{GRINNING FACE}" + "a" * 1_040_000).encode()))

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
    "GIF, HTML behind the signature": b"GIF89a<html><script>alert(1)</script></html>",
    "JPEG, HTML behind the signature": b"\xff\xd8\xff<html></html>",
    "JPEG, last two bytes": JPEG[:-2],
    "JPEG, lossless": JPEG.replace(b"\xff\xc0", b"\xff\xc3", 1),
    "WebP, last byte": WEBP[:-1],
    "GIF, half": GIF[: len(GIF) // 2],
    "GIF, header only": GIF[:13],
    "AVIF, half": AVIF[: len(AVIF) // 2],
    "AVIF, last bytes": AVIF[:-20],
    "AVIF, header only": AVIF[: AVIF.index(b"mdat")],
    "AVIF, brand only": AVIF[:32],
    "HEIC, half": HEIC[: len(HEIC) // 2],
    "HEIC, last bytes": HEIC[:-20],
    "HEIC, header only": HEIC[: HEIC.index(b"mdat")],
    "WebP, half": WEBP[: len(WEBP) // 2],
    "WebP, header only": WEBP[:20],
}  # fmt: skip


def webp_claiming(width: int, height: int) -> bytes:
    """Return an extended WebP whose header claims a canvas of this size."""
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
    "AVIF, 16000x16000": AVIF.replace(struct.pack(">II", 160, 120), struct.pack(">II", 16_000, 16_000)),
}

THIN: dict[str, bytes] = {
    "1x20000": flat_png(1, 20_000),
    "20000x1": flat_png(20_000, 1),
    "65500x1 JPEG": encoded(Image.new("L", (65_500, 1)), "JPEG"),
    "31x1": flat_png(31, 1),
    "301x10": flat_png(301, 10),
}

_RATIONAL, _SHORT = 5, 3
MANY_NUMBERS = tiff(
    (0x0112, _SHORT, 1, b"\0\6\0\0"),
    (0x011A, _RATIONAL, 100_000, b"\0\0\0\x40"),
    (0x0128, _SHORT, 1, b"\0\2\0\0"),
    (0x1000, _RATIONAL, 2_000_000, b"\0\0\0\x40"),
    behind=b"\0\0\0\1" * 4_500_000,
)


def laden_jpeg(*segments: bytes) -> bytes:
    return JPEG[:2] + b"".join(segments) + JPEG[2:]


#: The trailer of XMP in a GIF: whichever byte of the text a parser takes for a block's length, it gets to the end.
XMP_TRAILER = b"\1" + bytes(range(255, -1, -1)) + b"\0"


def avif_with_exif(content: bytes, **options: bytes) -> bytes:
    """Return an AVIF with EXIF that Pillow would not write; it replaces a comment and the entry that points at it."""
    comment = tiff((0x9286, 7, len(content), b"\0\0\0\x1a"), behind=b"c" * len(content))
    data = encoded(photo(), "AVIF", exif=b"Exif\0\0" + comment, **options)
    start = data.index(comment[:4])
    return data[:start] + content + data[start + len(content) :]


#: Complete pictures with more metadata than Pillow reads.
LADEN: dict[str, bytes] = {
    "PNG, text that unpacks to 100 MB": PNG[:33] + chunk(b"zTXt", b"a\0\0" + deflated(b"\0", 100_000_000)) + PNG[33:],
    "PNG, profile that unpacks to 100 MB": PNG[:33]
    + chunk(b"iCCP", b"a\0\0" + deflated(b"\0", 100_000_000))
    + PNG[33:],
    "PNG, 63 MB of text, four bytes a character": PNG[:33] + LONG_TEXT * 63 + PNG[33:],
    "PNG, 10 MB of text behind its pixels": PNG[:-12] + chunk(b"tEXt", b"a\0" + b"x" * 10_000_000) + PNG[-12:],
    "PNG, a text with a wrong checksum": PNG[:33] + chunk(b"tEXt", b"a\0b", 1) + PNG[33:],
    "PNG, an orientation of 100 MB": PNG[:33]
    + chunk(b"zTXt", b"Raw profile type exif\0\0" + deflated(b"0", 100_000_000))
    + PNG[33:],
    "PNG, a text named like a property": PNG[:33] + chunk(b"tEXt", b"transparency\0red") + PNG[33:],
    "PNG, private chunks": PNG[:33] + chunk(b"prVt", b"x" * 30) * 10_000 + PNG[33:],
    "JPEG, comments": laden_jpeg(segment(0xFE, b"x" * 40) * 5_000),
    "JPEG, comments that look like scans": laden_jpeg(segment(0xFE, b"\xff\xda" * 100)),
    "JPEG, a film behind it": JPEG + b"\0\0\0\x18ftypmp42" + b"\xff\xda" * 5_000,
    "JPEG, another one behind it": JPEG + JPEG * 100,
    "JPEG, a preview of hundreds of scans in its EXIF": laden_jpeg(
        segment(0xE1, b"Exif\0\0" + tiff() + b"\xff\xd8" + b"\xff\xda\0\x08\1\1\0\0\x3f\0" * 500)
    ),
    "JPEG, all application segments": laden_jpeg(
        *(segment(marker, b"x" * 60_000) for marker in range(0xE0, 0xF0)),
        segment(0xE2, b"ICC_PROFILE\0\1\1" + b"x" * 60_000),
    ),
    "GIF, XMP": GIF[:781]
    + b"\x21\xff\x0bXMP DataXMP"
    + b"<rdf:li>a keyword</rdf:li> " * 12_000
    + XMP_TRAILER
    + GIF[781:],
    "GIF, comments": GIF[:781] + (b"\x21\xfe\x20" + b"x" * 32 + b"\0") * 5_000 + GIF[781:],
}

SLOW: dict[str, bytes] = {
    "PNG of empty chunks": png_header(8, 8) + chunk(b"abCd") * 400_000,
    "PNG of text": png_header(8, 8) + chunk(b"tEXt", b"a\0b") * 300_000,
    "JPEG of comments": jpeg_with_segments(segment(0xFE, b"") * 1_200_000),
    "JPEG of EXIF headers": jpeg_with_segments(segment(0xE1, b"Exif\0\0") * 500_000),
    "JPEG of comments behind its scan": JPEG[:-2] + segment(0xFE, b"") * 1_200_000 + JPEG[-2:],
    "JPEG of markers in its scan": JPEG[:-100] + b"\xff\x02" * 2_000_000 + JPEG[-100:],
    "JPEG of fill bytes": jpeg_with_segments(b"\xff" * 5_000_000),
    "JPEG of garbage": jpeg_with_segments(b"\0" * 5_000_000),
    "GIF of comments": GIF[:781] + b"\x21\xfe" + b"\xffx" * 2_000_000 + GIF[781:],
    "GIF of zeros": GIF[:781] + b"\0" * 5_000_000 + GIF[781:],
    # Pillow alone would need 2 to 28 seconds and up to 1.5 GB for each of the following.
    "JPEG of small EXIF segments": jpeg_with_segments(segment(0xE1, b"Exif\0\0" + b"x" * 1_000) * 19_500),
    "JPEG of Photoshop resources": jpeg_with_segments(
        segment(0xED, b"Photoshop 3.0\0" + (b"8BIM\0\1" + b"\0" * 6) * 5_000) * 330
    ),
    "JPEG of a resolution of 2 million numbers": jpeg_with_segments(
        segment(0xE1, b"Exif\0\0" + MANY_NUMBERS[:60_000]),
        *(segment(0xE1, b"Exif\0\0" + MANY_NUMBERS[at : at + 60_000]) for at in range(60_000, 18_000_000, 60_000)),
    ),
    "PNG of EXIF of 2 million numbers": PNG[:33] + chunk(b"eXIf", MANY_NUMBERS) + PNG[33:],
    "PNG of an orientation of 100,000 numbers": PNG[:33] + chunk(b"eXIf", MANY_NUMBERS[:900_000]) + PNG[33:],
    "WebP of EXIF": encoded(photo(), "WEBP", exif=b"Exif\0\0" + MANY_NUMBERS[:900_000]),
    "AVIF of EXIF": avif_with_exif(MANY_NUMBERS),
    "AVIF of EXIF, with XMP": avif_with_exif(MANY_NUMBERS, xmp=b'tiff:Orientation="6"'),
    "AVIF of EXIF of 100,000 numbers, with XMP": avif_with_exif(MANY_NUMBERS[:900_000], xmp=b'tiff:Orientation="6"'),
    "AVIF of XMP": encoded(photo(), "AVIF", xmp=b"tiff:Orientation" * 1_200_000),
    "GIF of long comments": GIF[:781] + b"\x21\xfe" + (b"\xff" + b"x" * 255) * 78_000 + b"\0" + GIF[781:],
    "GIF of extensions": GIF[:781] + b"\x21\xf9\x04\0\0\0\0\0" * 600_000 + GIF[781:],
}
