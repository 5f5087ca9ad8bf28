"""From bytes that strangers chose to an RGB image, within limits on formats, pixels, shape and parsing.

The pixels are those of ``transformers``' own ``load_image`` (EXIF orientation applied, then ``convert("RGB")``, alpha
dropped), so that scores equal the pipeline's. The one deliberate difference: 16-bit grey is scaled to 8 bits, where
``convert`` would clip all but its darkest 255 levels to white.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from producer.errors import JobFailed

#: Formats that browsers show and that Pillow decodes itself: no Ghostscript, no document formats, no archives.
FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF")
#: Resizing the shorter side to 224 makes a 1 × 20,000 image 224 × 4,480,000: gigabytes from a 157-byte file.
MAX_ASPECT_RATIO: Final = 30
#: Scans of a JPEG, each of which costs a pass over all its pixels. Encoders write about 10 for a progressive image.
MAX_JPEG_SCANS: Final = 60
#: Pillow parses headers in Python, in a few reads per chunk; images have chunks of kilobytes, bombs of 12 bytes.
#: What every image may use, and how many bytes of file allow one more read.
FREE_READS: Final = 2_000
BYTES_PER_READ: Final = 128

_SIGNATURES: Final = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP", re.DOTALL)
_Returned = TypeVar("_Returned")


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded image.

    Attributes:
        image: mode RGB, upright.
        width: of ``image``, in pixels.
        height: of ``image``, in pixels.
        format: ``JPEG``, ``PNG``, ``WEBP`` or ``GIF``.
    """

    image: Image.Image
    width: int
    height: int
    format: str


class UndecodedImage:
    """An image whose header was read and found within the limits, and whose pixels take no memory yet.

    Attributes:
        pixels: how many pixels `decode` will hold. While it works they take 4 to 8 bytes each (17 for WebP),
            then 4.
    """

    def __init__(self, file: Image.Image) -> None:
        self._file = file
        self.pixels = file.width * file.height

    def decode(self) -> Decoded:
        """Decode the first frame; raises `JobFailed` with ``undecodable`` or ``out_of_memory``. To be called once."""
        image = _contained(self._load)
        name = self._file.format or ""
        return Decoded(image, image.width, image.height, "JPEG" if name == "MPO" else name)

    def _load(self) -> Image.Image:
        file = self._file
        file.load()
        _turn_upright(file)
        if file.mode.startswith("I;16"):
            return _eight_bit_grey(file).convert("RGB")
        if file.mode == "RGB" and file.format != "WEBP":  # a WebP file would keep its decoder's canvases alive
            return file
        # convert() drops several transparent entries anyway, with a warning. A single one becomes a colour of the RGB
        # image, which most image processors paint white: it stays, or scores would differ from the pipeline's.
        if isinstance(file.info.get("transparency"), bytes):
            del file.info["transparency"]
        return file.convert("RGB")


def decode(data: bytes, *, max_pixels: int) -> Decoded:
    """Decode an image of at most ``max_pixels`` pixels.

    Raises:
        JobFailed: ``empty``, ``unsupported_format``, ``undecodable``, ``too_many_pixels``, ``bad_aspect_ratio`` or
            ``out_of_memory``; nothing else, whatever the bytes are.
    """
    return open_image(data, max_pixels=max_pixels).decode()


def open_image(data: bytes, *, max_pixels: int) -> UndecodedImage:
    """Read an image's header only, and check every limit that can be checked without its pixels; see `decode`."""
    if not data:
        raise JobFailed("empty", "the body has no bytes; check the upload.")
    file = _contained(lambda: _open(data))
    if file is None:
        if _SIGNATURES.match(data):
            raise _undecodable()
        raise JobFailed(
            "unsupported_format",
            "the body is not a JPEG, PNG, WebP or GIF; convert the image, and check that the URL is not an HTML page.",
        )
    width, height = file.size
    if width < 1 or height < 1:
        raise _undecodable()
    if width * height > max_pixels:
        raise _too_many_pixels()
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise JobFailed(
            "bad_aspect_ratio",
            f"one side of the image is over {MAX_ASPECT_RATIO} times the other; crop the image.",
        )
    if file.format in ("JPEG", "MPO") and data.count(b"\xff\xda") > MAX_JPEG_SCANS:
        raise _undecodable()
    return UndecodedImage(file)


def prepare_pillow(max_pixels: int) -> None:
    """Set Pillow's own process-wide limits to agree with ours; once, at start.

    Raises:
        RuntimeError: some other code made Pillow accept truncated images.
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise RuntimeError("ImageFile.LOAD_TRUNCATED_IMAGES is set; damaged images would be classified as if whole")
    # Pillow warns above this and refuses above twice this; images that only make it warn are refused by `open_image`.
    Image.MAX_IMAGE_PIXELS = max_pixels
    # Strangers' files would otherwise write to our standard error.
    warnings.filterwarnings("ignore", module=r"PIL\.")


class _MeteredBytes(io.BytesIO):
    """The bytes of an image; reading them in too many small pieces is an error."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._reads_left = FREE_READS + len(data) // BYTES_PER_READ

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads_left -= 1
        if self._reads_left < 0:
            raise _undecodable()
        return super().read(size)


def _open(data: bytes) -> Image.Image | None:
    try:
        return Image.open(_MeteredBytes(data), formats=FORMATS)
    except UnidentifiedImageError:
        return None


def _turn_upright(file: Image.Image) -> None:
    try:
        ImageOps.exif_transpose(file, in_place=True)
    except MemoryError:
        raise
    except Exception:  # noqa: S110 - a camera's broken metadata says nothing about its picture
        pass


def _eight_bit_grey(file: Image.Image) -> Image.Image:
    """16-bit grey, rounded to the nearest of 256 levels: 65535 / 255 = 257 to one."""
    levels = np.arange(65_536, dtype=np.uint32)
    table = ((levels + 128) // 257).astype(np.uint8)
    return Image.fromarray(table[np.asarray(file)])


def _contained(work: Callable[[], _Returned]) -> _Returned:
    """Run a piece of Pillow; whatever comes out of it is one of our failures, without the exception's text."""
    try:
        return work()
    except JobFailed as error:
        failure = JobFailed(error.code, error.message, error.retryable)  # without what Pillow made of it
    except MemoryError:
        failure = JobFailed("out_of_memory", "the worker ran out of memory while decoding the image; try again.")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        failure = _too_many_pixels()
    except Exception:
        # OSError, SyntaxError, ValueError, struct.error, RecursionError, …: decoders raise what they like.
        failure = _undecodable()
    raise failure


def _undecodable() -> JobFailed:
    return JobFailed("undecodable", "the image is damaged; upload it again.")


def _too_many_pixels() -> JobFailed:
    return JobFailed("too_many_pixels", "the image has more pixels than NAMESHOT_MAX_PIXELS; send a smaller rendition.")
