"""The model gets the pixels of Transformers' own loader, some of which are pinned here."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.images.conftest import MAX_PIXELS, code_of
from tests.images.files import chunk, encoded, gif_offset, jpeg_with_segments, photo, png, segment, tiff
from worker.decoding.heif import register_heif
from worker.decoding.images import open_image

register_heif()  # because the files are made when this module is imported
RED, TRANSPARENT_RED = (255, 0, 0), (255, 0, 0, 0)


def exif(orientation: object) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def animated(kind: str) -> bytes:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=10, lossless=True)


def palette(alpha: bytes | int | None = None) -> bytes:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, *RED, 0, 255, 0])
    return encoded(image, "PNG", **({} if alpha is None else {"transparency": alpha}))


def inked(transform: int = 0, adobe: bool = True) -> bytes:
    """Return a CMYK JPEG of full magenta and yellow; Adobe's marker says how the inks are stored."""
    data = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG")
    marker = data.index(b"Adobe") - 4
    return (
        data[:marker]
        + (segment(0xEE, b"Adobe\0d\0\0\0\0" + bytes([transform])) if adobe else b"")
        + data[marker + 16 :]
    )


FILES: dict[str, bytes] = {
    "JPEG": encoded(photo(), "JPEG"),
    "JPEG, progressive": encoded(photo(), "JPEG", progressive=True),
    "JPEG, 4:4:4": encoded(photo(), "JPEG", subsampling=0, quality=95),
    "JPEG, grey": encoded(photo().convert("L"), "JPEG"),
    "JPEG, CMYK": encoded(photo().convert("CMYK"), "JPEG"),
    "JPEG, red ink": inked(),
    "JPEG, YCCK": inked(transform=2),
    "JPEG, red ink, no word of Adobe's": inked(adobe=False),
    "JPEG, marked as arithmetic-coded": encoded(photo(), "JPEG").replace(b"\xff\xc0", b"\xff\xc9", 1),
    "JPEG, EXIF in two segments": jpeg_with_segments(segment(0xE1, exif(6)), segment(0xE1, b"Exif\0\0" + b"x" * 9_000)),
    "JPEG, broken ICC profile": encoded(photo(), "JPEG", icc_profile=b"broken" * 100),
    "JPEG, huge ICC profile": encoded(photo(), "JPEG", icc_profile=b"x" * 10_000_000),
    "JPEG, no EXIF tags": encoded(photo(), "JPEG", exif=Image.Exif().tobytes()),
    "MPO": encoded(photo(), "MPO", save_all=True, append_images=[photo(32, 32)]),
    "PNG": encoded(photo(), "PNG"),
    "PNG, interlaced by hand": png(1, 1, bytes(RED)),
    "PNG, 1 bit": encoded(photo().convert("1"), "PNG"),
    "PNG, grey": encoded(photo().convert("L"), "PNG"),
    "PNG, grey and alpha": encoded(photo().convert("LA"), "PNG"),
    "PNG, RGBA": encoded(Image.new("RGBA", (4, 4), TRANSPARENT_RED), "PNG"),
    "PNG, palette": palette(),
    "PNG, palette with one transparent entry": palette(1),
    "PNG, palette with several transparent entries": palette(b"\x80\x00\x40"),
    "PNG, RGB with a transparent colour": encoded(photo(), "PNG", transparency=RED),
    "PNG, grey with a transparent level": encoded(photo().convert("L"), "PNG", transparency=7),
    "PNG, 16-bit RGB": png(2, 1, bytes.fromhex("9c40ffff0000 00ff01008000"), 16),
    "PNG, 16-bit RGBA": png(1, 1, bytes.fromhex("9c40ffff00008000"), 16, 6),
    "PNG, 16-bit grey and alpha": png(1, 1, bytes.fromhex("9c408000"), 16, 4),
    "PNG, broken text chunk": png(1, 1, bytes(RED), 8, 2, chunk(b"iTXt", b"no separators")),
    "APNG": animated("PNG"),
    "GIF": encoded(photo(), "GIF"),
    "GIF, animated": animated("GIF"),
    "GIF, first frame smaller than the canvas": gif_offset(),
    "GIF, transparent": encoded(Image.new("RGBA", (4, 4), TRANSPARENT_RED), "GIF"),
    "WebP": encoded(photo(), "WEBP"),
    "WebP, lossless": encoded(photo(), "WEBP", lossless=True),
    "WebP, alpha": encoded(Image.new("RGBA", (4, 4), (*RED, 9)), "WEBP", lossless=True, exact=True),
    "WebP, animated": animated("WEBP"),
    "AVIF": encoded(photo(), "AVIF"),
    "AVIF, all colours": encoded(photo(), "AVIF", quality=100, subsampling="4:4:4"),
    "AVIF, grey": encoded(photo().convert("L"), "AVIF"),
    "AVIF, alpha": encoded(Image.new("RGBA", (16, 16), (*RED, 9)), "AVIF", quality=100, subsampling="4:4:4"),
    "AVIF, animated": animated("AVIF"),
    "HEIC": encoded(photo(), "HEIF"),
    "HEIC, alpha": encoded(Image.new("RGBA", (16, 16), (*RED, 9)), "HEIF", quality=-1, chroma=444),
    "HEIC, grey": encoded(photo().convert("L"), "HEIF"),
    "1x1": encoded(photo(1, 1), "PNG"),
    "2x1": encoded(photo(2, 1), "JPEG"),
    "223x225": encoded(photo(223, 225), "JPEG"),
    "30x1": encoded(photo(30, 1), "PNG"),
    **{
        f"{kind}, orientation {orientation}": encoded(photo(), kind, exif=exif(orientation))
        for kind in ("JPEG", "PNG", "WEBP", "AVIF", "HEIF")
        for orientation in (1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 65_535)
    },
    **{
        f"{kind}, XMP of {text!r}": encoded(photo(), kind, xmp=text)
        for kind in ("JPEG", "WEBP", "AVIF", "HEIF")
        for text in (
            *(b'<a tiff:Orientation="%d"/>' % orientation for orientation in range(10)),
            *(b"<tiff:Orientation>%d</tiff:Orientation>" % orientation for orientation in (3, 6)),
            b'tiff:Orientation="99"',
            b"tiff:Orientation=6",
            b'tiff:Orientation="" tiff:Orientation="3" tiff:Orientation="6"',
            b'tiff:Orientation="\xd9\xa3"',
            b"\xff\0",
        )
    },
    **{
        f"AVIF, XMP and {name}": encoded(photo(), "AVIF", xmp=b'tiff:Orientation="6"', exif=content)
        for name, content in {
            "EXIF that says 3": exif(3),
            "EXIF that says upright": exif(1),
            "EXIF that says 9": exif(9),
            "EXIF that says nothing": b"Exif\0\0" + tiff((0x0131, 2, 2, b"a\0\0\0")),
        }.items()
    },
}


@pytest.mark.parametrize("name", FILES)
def test_the_pixels_are_those_of_transformers_own_loader(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The steps of transformers.image_utils.load_image after opening the file.
        expected = ImageOps.exif_transpose(Image.open(io.BytesIO(FILES[name]))).convert("RGB")
    decoded = open_image(FILES[name], max_pixels=MAX_PIXELS).decode()
    assert decoded.image.mode == "RGB"
    assert np.array_equal(np.asarray(decoded.image), np.asarray(expected))
    assert (decoded.width, decoded.height) == expected.size
    # Image processors paint this colour white, so it affects the scores.
    assert decoded.image.info.get("transparency") == expected.info.get("transparency")


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("JPEG", "JPEG"),
        ("JPEG, CMYK", "JPEG"),
        ("MPO", "JPEG"),
        ("PNG", "PNG"),
        ("APNG", "PNG"),
        ("GIF", "GIF"),
        ("WebP", "WEBP"),
        ("WebP, animated", "WEBP"),
        ("AVIF, animated", "AVIF"),
        ("HEIC", "HEIF"),
    ],
)
def test_a_format_has_the_name_of_the_contract(name: str, format: str) -> None:  # noqa: A002
    assert open_image(FILES[name], max_pixels=MAX_PIXELS).decode().format == format


@pytest.mark.parametrize(
    ("name", "pixel"),
    [
        ("PNG, RGBA", RED),  # alpha is dropped, as convert("RGB") does
        ("PNG, palette", RED),
        ("PNG, palette with one transparent entry", RED),
        ("PNG, palette with several transparent entries", RED),
        ("PNG, 16-bit RGB", (0x9C, 0xFF, 0x00)),
        ("PNG, 16-bit RGBA", (0x9C, 0xFF, 0x00)),
        ("PNG, 16-bit grey and alpha", (0x9C, 0x9C, 0x9C)),
        ("WebP, alpha", RED),
        ("JPEG, red ink", RED),
        ("JPEG, red ink, no word of Adobe's", RED),
        ("GIF, animated", (254, 0, 0)),
        ("WebP, animated", RED),
        ("APNG", RED),
    ],
)
def test_some_pixels_have_pinned_values(name: str, pixel: tuple[int, int, int]) -> None:
    found = open_image(FILES[name], max_pixels=MAX_PIXELS).decode().image.getpixel((0, 0))
    assert isinstance(found, tuple)
    assert all(abs(one - other) <= 1 for one, other in zip(found, pixel, strict=True))


@pytest.mark.parametrize(("level", "expected"), [(0, 0), (128, 0), (129, 1), (40_000, 156), (65_535, 255)])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(level: int, expected: int) -> None:
    data = png(2, 2, level.to_bytes(2, "big") * 4, 16, 0)
    assert open_image(data, max_pixels=MAX_PIXELS).decode().image.getpixel((1, 1)) == (expected,) * 3


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_the_size_is_that_of_the_upright_picture(orientation: int) -> None:
    decoded = open_image(encoded(photo(64, 48), "JPEG", exif=exif(orientation)), max_pixels=MAX_PIXELS).decode()
    assert (decoded.width, decoded.height) == decoded.image.size == (48, 64)


@pytest.mark.parametrize(
    "data",
    [
        segment(0xE1, b"Exif\0\0"),
        segment(0xE1, b"Exif\0\0garbage"),
        segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"),
        segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0" * 100),
        segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x04six\0\0\0\0\0"),
        segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x05\0\0\0\x01\0\0\0\x1a\0\0\0\0\0\0\0\0"),
        segment(0xE1, b"Exif\0\0" + b"x" * 65_000) * 150,
        segment(0xE2, b"MPF\0garbage"),
        segment(0xED, b"Photoshop 3.0\0" + b"8BIM" * 1_000),
        segment(0xEE, b"Adobe\0d\0\0\0\0\x02"),
    ],
    ids=lambda data: repr(data[4:30]),
)
def test_a_picture_with_broken_metadata_is_accepted(data: bytes) -> None:
    decoded = open_image(jpeg_with_segments(data), max_pixels=MAX_PIXELS).decode()
    assert sorted(decoded.image.size) == [48, 64]


@pytest.mark.parametrize(("error", "code"), [(ValueError("unreadable"), "ok"), (MemoryError(), "out_of_memory")])
def test_metadata_that_cannot_be_read_is_ignored_unless_memory_ran_out(
    error: Exception, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Image.Exif, "load", unreadable)
    assert code_of(encoded(photo(), "PNG", exif=exif(6))) == code


def test_a_decoded_image_no_longer_needs_the_file_s_bytes() -> None:
    decoded = open_image(FILES["JPEG"], max_pixels=MAX_PIXELS).decode()
    assert decoded.image.resize((8, 8)).size == (8, 8)
    assert decoded.image.copy().tobytes() == decoded.image.tobytes()


def test_the_test_picture_differs_in_all_eight_orientations() -> None:
    """Otherwise the comparison with the loader above would not prove that orientations are applied."""
    picture = photo()
    turns: list[Callable[[Image.Image], Image.Image]] = [
        lambda image, method=method: image.transpose(method)  # type: ignore[misc]
        for method in Image.Transpose
    ]
    assert len({turn(picture).tobytes() for turn in turns} | {picture.tobytes()}) == 8
