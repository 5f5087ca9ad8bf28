"""Decodes untrusted bytes to an RGB image, within limits on formats, pixels, shape and parsing.

The pixels equal those of ``transformers``' own ``load_image`` (EXIF orientation applied, then ``convert("RGB")``, alpha
dropped), so that scores equal the pipeline's, with two deliberate differences. 16-bit grey is scaled to 8 bits, where
``convert`` would clip all but the darkest 255 levels to white; and a JPEG may be decoded at a fraction of its size.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from producer.errors import JobFailed
from worker.decoding.avif import AvifFile, is_avif
from worker.decoding.heif import is_heif, register_heif
from worker.decoding.metadata import MAX_JPEG_SCANS, MAX_ORIENTATION_BYTES, TooManyParts, TooManyScans, without_metadata

#: Resizing the shorter side to 224 makes a 1 × 20,000 image 224 × 4,480,000: gigabytes from a 157-byte file.
MAX_ASPECT_RATIO: Final = 30
#: Pillow parses headers in Python, in a few reads per segment. Every image gets FREE_READS reads, plus one for each
#: BYTES_PER_READ bytes: the segments that `without_metadata` keeps have hundreds of bytes.
FREE_READS: Final = 2_000
BYTES_PER_READ: Final = 128
#: The most memory that decoding was measured to use. A progressive CMYK JPEG needs coefficients and pixels; PNG and GIF
#: a converted or rotated copy; WebP two canvases and a copy; AVIF and HEIF planes of 16 bits and two copies.
BYTES_PER_PIXEL: Final = {"JPEG": 12, "PNG": 9, "WEBP": 18, "GIF": 9, "AVIF": 24, "HEIF": 24}
#: Cameras and web pages use these formats; none needs Ghostscript or is a document or an archive. A new format belongs
#: at the end, because values in the shared cache hold an index into this tuple.
FORMATS: Final = tuple(BYTES_PER_PIXEL)
#: For each reason to refuse an image, the error code and a message, or None where the code's own message fits.
REFUSALS: Final[dict[str, tuple[str, str | None]]] = {
    "empty": ("empty", None),
    "unsupported_format": ("unsupported_format", None),
    "damaged": ("undecodable", None),
    "bad_header": ("undecodable", "the image's header is damaged or of a rare kind; save the image again."),
    "cut_off": ("undecodable", "the image file ends before the image does; upload the whole file."),
    "too_many_scans": (
        "undecodable",
        f"the JPEG has more than {MAX_JPEG_SCANS} scans, or too many for its size; save it again as an ordinary JPEG.",
    ),
    "too_many_parts": (
        "undecodable",
        "the image file consists of too many small parts; save it again with an image editor.",
    ),
    "too_many_pixels": ("too_many_pixels", None),
    "bad_aspect_ratio": ("bad_aspect_ratio", None),
    "out_of_memory": ("out_of_memory", "the worker ran out of memory while decoding the image; try again."),
    "model_error": ("model_error", None),
}

#: Files of these formats are containers of boxes, which `_opened_container` opens.
_CONTAINERS: Final = ("AVIF", "HEIF")
#: Pillow opens files of the other formats directly.
_PLAIN_FORMATS: Final = tuple(name for name in FORMATS if name not in _CONTAINERS)
_SIGNATURES: Final = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP|....ftypavi[fs]", re.DOTALL)
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: These turns swap width and height.
_QUARTER_TURNS: Final = frozenset(_TURNS[orientation] for orientation in (5, 6, 7, 8))
#: Pillow's objects for files of these formats hold the decoder's own copy of the pixels until they are closed.
_WITH_DECODERS: Final = ("WEBP", "AVIF", "HEIF")
_Returned = TypeVar("_Returned")


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded image.

    Attributes:
        image: mode RGB, upright; smaller than the picture if `least_side` allowed it.
        width: width of the upright picture in pixels.
        height: height of the upright picture in pixels.
        format: one of `FORMATS`.
    """

    image: Image.Image
    width: int
    height: int
    format: str


class UndecodedImage:
    """An image whose header is within the limits, and whose pixels take no memory yet.

    Attributes:
        memory_bytes: the most memory that `decode` uses; the image that it returns has at most 4 bytes per pixel.
    """

    def __init__(self, file: Image.Image) -> None:
        self._files = [file]
        self.memory_bytes = file.width * file.height * BYTES_PER_PIXEL[file.format or "WEBP"]

    def decode(self, least_side: int | None = None) -> Decoded:
        """Decode the first frame. Call it only once.

        Args:
            least_side: a JPEG may be decoded at a half, a quarter or an eighth of its size, which costs less, if both
                sides keep this many pixels.

        Raises:
            JobFailed: ``undecodable`` or ``out_of_memory``.
        """
        # Remove the file, so that its pixels and a WebP decoder's canvases do not stay in memory for the whole job.
        file = self._files.pop()
        name, (width, height) = file.format or "", file.size
        image, turn = _contained(lambda: _upright_rgb(file, least_side))
        if turn in _QUARTER_TURNS:
            width, height = height, width
        return Decoded(image, width, height, name)


def refusal(reason: str) -> JobFailed:
    """Return the failure for one of the reasons of `REFUSALS`."""
    return JobFailed(*REFUSALS[reason])


def reason_of(failure: JobFailed) -> str:
    """Return the reason from which `refusal` makes this failure."""
    return next(reason for reason in REFUSALS if refusal(reason).args == failure.args)


def open_image(data: bytes, *, max_pixels: int) -> UndecodedImage:
    """Read only an image's header, and check all limits that need no pixels, such as ``max_pixels``.

    Raises:
        JobFailed: ``empty``, ``unsupported_format``, ``undecodable``, ``too_many_pixels``, ``bad_aspect_ratio`` or
            ``out_of_memory``; nothing else, whatever the bytes are.
    """
    if not data:
        raise refusal("empty")
    file = _contained(lambda: _open(data, max_pixels))
    if file is None:
        raise refusal("bad_header" if _SIGNATURES.match(data) else "unsupported_format")
    width, height = file.size
    if width < 1 or height < 1:
        raise refusal("bad_header")
    if width * height > max_pixels:
        raise refusal("too_many_pixels")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise refusal("bad_aspect_ratio")
    return UndecodedImage(file)


def prepare_pillow(max_pixels: int) -> None:
    """Set Pillow's process-wide limits to agree with ours; call it once, at start.

    Raises:
        RuntimeError: some other code made Pillow accept truncated images.
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise RuntimeError("unset ImageFile.LOAD_TRUNCATED_IMAGES; damaged images would be classified as if whole")
    # Pillow warns of an image with more pixels and refuses one with over twice as many; `open_image` refuses both.
    Image.MAX_IMAGE_PIXELS = max_pixels
    # Without this filter, an untrusted file could make Python write warnings to this process's standard error.
    warnings.filterwarnings("ignore", module=r"PIL\.")


class _MeteredBytes(io.BytesIO):
    """The bytes of an image file; `read` raises `TooManyParts` once the file has been read in too many pieces."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._reads_left = FREE_READS + len(data) // BYTES_PER_READ

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads_left -= 1
        if self._reads_left < 0:
            raise TooManyParts
        return super().read(size)


def _open(data: bytes, max_pixels: int) -> Image.Image | None:
    try:
        if data[4:8] == b"ftyp":
            return _opened_container(data)
        return Image.open(_MeteredBytes(without_metadata(data, max_pixels=max_pixels)), formats=_PLAIN_FORMATS)
    except (SyntaxError, UnidentifiedImageError):
        return None


def _opened_container(data: bytes) -> Image.Image:
    """Open an AVIF or HEIC picture; both formats share a container, whose brand may be a general one."""
    brand = data[8:12]
    if is_avif(brand):
        with suppress(SyntaxError):
            return AvifFile(io.BytesIO(data))
    if is_heif(brand) and register_heif():
        return Image.open(io.BytesIO(data), formats=("HEIF",))
    raise UnidentifiedImageError


def _upright_rgb(file: Image.Image, least_side: int | None) -> tuple[Image.Image, Image.Transpose | None]:
    """Return the upright image, and the turn that made it upright, if any."""
    if least_side is not None:
        file.draft(None, (least_side, least_side))
    file.load()
    turn = _turn(file)
    if file.mode == "RGB" and file.format not in _WITH_DECODERS:
        image = file
    else:
        image = _rgb(file)
        file.close()
    return image if turn is None else image.transpose(turn), turn


def _rgb(file: Image.Image) -> Image.Image:
    if file.mode.startswith("I;16"):
        return _eight_bit_grey(file).convert("RGB")
    # If several palette entries are transparent, convert() drops their transparency anyway, with a warning. A single
    # one becomes the transparent colour of the RGB image, which most image processors paint white, so it must stay for
    # scores to equal the pipeline's.
    if isinstance(file.info.get("transparency"), bytes):
        del file.info["transparency"]
    return file.convert("RGB")


def _turn(file: Image.Image) -> Image.Transpose | None:
    """Return the turn that EXIF asks for, if any; ``exif_transpose`` also rewrites EXIF: 28 s and 650 MB for 18 MB."""
    if len(file.info.get("exif") or b"") > MAX_ORIENTATION_BYTES:
        return None
    try:
        if isinstance(file, AvifFile):
            return _TURNS.get(file.orientation)
        return _TURNS.get(file.getexif().get(ExifTags.Base.Orientation, 1))
    except MemoryError:
        raise
    except Exception:  # a picture is classified even if its camera wrote broken metadata
        return None


def _eight_bit_grey(file: Image.Image) -> Image.Image:
    """Round 16-bit grey to the nearest of 256 levels, each of 65535 / 255 = 257."""
    levels = np.arange(65_536, dtype=np.uint32)
    table = ((levels + 128) // 257).astype(np.uint8)
    return Image.fromarray(table[np.asarray(file)])


def _contained(work: Callable[[], _Returned]) -> _Returned:
    """Run Pillow code and turn every error into one of `REFUSALS`, without the exception's text."""
    try:
        return work()
    except JobFailed as error:
        failure = JobFailed(error.code, error.message, error.retryable)  # without Pillow's exceptions as its context
    except MemoryError:
        failure = refusal("out_of_memory")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        failure = refusal("too_many_pixels")
    except TooManyScans:
        failure = refusal("too_many_scans")
    except TooManyParts:
        failure = refusal("too_many_parts")
    except Exception as error:
        # Decoders raise OSError, SyntaxError, ValueError, struct.error, RecursionError and others.
        failure = refusal("cut_off" if "truncated" in str(error).lower() else "damaged")
    raise failure
