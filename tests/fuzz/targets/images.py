"""Damaged and contrived image files decode to an RGB image within the limits, or fail with a code of the contract."""

from __future__ import annotations

import struct
import time
import zlib

import numpy as np
from PIL import Image

from producer.errors import ERROR_CODES, JobFailed
from tests.fuzz.target import Target
from tests.images.files import PNG_SIGNATURE, encoded, photo
from worker.decoding.images import MAX_ASPECT_RATIO, open_image, prepare_pillow

#: Large enough for the seeds and their mutations, small enough to decode many images per second.
MAX_PIXELS = 1_000_000
#: CPU time, so that a busy machine causes no finding. The slowest known file of a megapixel takes a tenth of it.
MAX_CPU_S = 5.0
#: The codes with which decoding may fail; `out_of_memory` would mean that the limits permitted a bomb.
CODES = {"empty", "unsupported_format", "undecodable", "too_many_pixels", "bad_aspect_ratio"}

prepare_pillow(MAX_PIXELS)
Image.init()  # load the formats' readers now, so that Atheris instruments them


def run(data: bytes) -> bool:
    check(data)
    # Any mutation of a PNG breaks a checksum, so that the decoder would never run.
    if data.startswith(PNG_SIGNATURE):
        check(with_sound_checksums(data))
    return True


def check(data: bytes) -> None:
    started_s = time.thread_time()
    try:
        decoded = open_image(data, max_pixels=MAX_PIXELS).decode()
    except JobFailed as failure:
        assert type(failure) is JobFailed
        assert failure.code in CODES, failure.code
        assert failure.retryable == ERROR_CODES[failure.code].retryable
    else:
        width, height = decoded.image.size
        assert (decoded.width, decoded.height) == (width, height)
        assert decoded.format in ("JPEG", "PNG", "WEBP", "GIF")
        assert 1 <= width * height <= MAX_PIXELS
        assert max(width, height) <= MAX_ASPECT_RATIO * min(width, height)
        assert decoded.image.mode == "RGB"
        assert np.asarray(decoded.image).shape == (height, width, 3)
    cpu_s = time.thread_time() - started_s
    assert cpu_s < MAX_CPU_S, f"{cpu_s:.1f} s of CPU"


def with_sound_checksums(data: bytes) -> bytes:
    """Return the PNG with right checksums of its chunks, as far as the file can be parsed."""
    pieces, at = [data[:8]], 8
    while at + 12 <= len(data):
        end = at + 8 + struct.unpack_from(">I", data, at)[0]
        if end + 4 > len(data):
            break
        pieces += [data[at:end], struct.pack(">I", zlib.crc32(data[at + 4 : end]))]
        at = end + 4
    return b"".join([*pieces, data[at:]])


def seeds() -> list[bytes]:
    """Return a small file of each format, mode and variant that Pillow writes."""
    picture = photo(20, 16)
    alpha = picture.copy()
    alpha.putalpha(picture.convert("L"))
    palette = picture.quantize(16)
    grey16 = Image.fromarray((np.asarray(picture.convert("L")).astype(np.uint16)) * 257)
    turned = picture.getexif()
    turned[0x0112] = 6
    frames = [picture.rotate(angle) for angle in (90, 180)]
    animated = {"save_all": True, "append_images": frames, "duration": 40}
    profile = {"icc_profile": b"no profile", "exif": turned}
    return [
        *(encoded(picture.convert(mode), "PNG") for mode in ("RGB", "L", "1", "LA", "RGBA", "P")),
        encoded(grey16, "PNG"),
        encoded(palette, "PNG", transparency=bytes(range(16)), bits=4),
        encoded(picture, "PNG", transparency=(1, 2, 3), **profile),
        encoded(picture, "PNG", **animated),
        *(encoded(picture.convert(mode), "JPEG") for mode in ("RGB", "L", "CMYK")),
        encoded(picture, "JPEG", progressive=True, **profile),
        encoded(picture, "JPEG", subsampling=0, restart_marker_blocks=1, comment=b"a comment"),
        encoded(picture, "MPO", save_all=True, append_images=frames),
        *(encoded(picture.convert(mode), "GIF") for mode in ("RGB", "L", "1")),
        encoded(palette, "GIF", transparency=3, interlace=1, comment=b"a comment"),
        encoded(palette, "GIF", disposal=2, loop=0, **animated),
        encoded(picture, "WEBP", quality=50),
        encoded(alpha, "WEBP", **profile),
        encoded(alpha, "WEBP", lossless=True),
        encoded(picture, "WEBP", **animated),
    ]


TARGET = Target(run, seeds, max_bytes=16_384)
