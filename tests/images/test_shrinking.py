"""With NAMESHOT_REDUCING_GAP large images are shrunk in two steps, the first of which is fast."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.images.conftest import MAX_PIXELS
from tests.images.files import encoded, photo
from worker.decoding.images import Decoded, open_image
from worker.model.geometry import Geometry

CLIPS = Geometry(224, Image.Resampling.BICUBIC, (224, 224), reducing_gap=2.0)
#: Within this range no side is more than 30 times the other, because such images are refused.
SIDES = st.integers(24, 700)


def shrunk(data: bytes, geometry: Geometry) -> Decoded:
    return open_image(data, max_pixels=MAX_PIXELS).decode(geometry.least_side)


@pytest.mark.parametrize(
    ("size", "comes_out"),
    [((4000, 3000), (1000, 750)), ((1600, 1200), (800, 600)), ((900, 890), (900, 890)), ((8000, 500), (8000, 500))],
)
def test_a_jpeg_is_decoded_no_larger_than_the_gap_requires(size: tuple[int, int], comes_out: tuple[int, int]) -> None:
    picture = shrunk(encoded(photo(*size), "JPEG"), CLIPS)

    assert picture.image.size == comes_out
    assert (picture.width, picture.height) == size


def test_a_progressive_jpeg_is_decoded_smaller_too() -> None:
    assert shrunk(encoded(photo(1600, 1200), "JPEG", progressive=True), CLIPS).image.size == (800, 600)


def test_the_size_of_a_rotated_picture_is_that_of_the_upright_one() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6

    picture = shrunk(encoded(photo(1600, 1200), "JPEG", exif=turned.tobytes()), CLIPS)

    assert (picture.width, picture.height) == (1200, 1600)
    assert picture.image.size == (600, 800)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_other_formats_are_decoded_at_full_size(kind: str) -> None:
    assert shrunk(encoded(photo(1000, 950), kind), CLIPS).image.size == (1000, 950)


def test_a_geometry_without_a_resize_needs_the_whole_image() -> None:
    assert Geometry(None, Image.Resampling.BICUBIC, (8, 8), reducing_gap=2.0).least_side is None


@given(SIDES, SIDES, st.sampled_from([16, (16, 24), (24, 16)]), st.sampled_from([None, (16, 16)]))
def test_the_shape_is_the_same_as_without_the_gap_whatever_the_size(
    width: int, height: int, size: int | tuple[int, int], crop: tuple[int, int] | None
) -> None:
    geometry = Geometry(size, Image.Resampling.BICUBIC, crop, reducing_gap=1.0)
    exact = Geometry(size, Image.Resampling.BICUBIC, crop)
    picture = shrunk(encoded(Image.new("RGB", (width, height), (9, 99, 199)), "JPEG"), geometry)

    prepared = geometry.apply(picture.image, picture.width, picture.height)

    assert prepared.shape == exact.shape(width, height)


def test_pixels_differ_little_from_those_without_the_gap() -> None:
    data = encoded(photo(1600, 1200).resize((3200, 2400)), "JPEG")
    whole = open_image(data, max_pixels=MAX_PIXELS).decode()
    exact = Geometry(224, Image.Resampling.BICUBIC, (224, 224)).apply(whole.image).astype(int)

    picture = shrunk(data, CLIPS)
    differences = np.abs(CLIPS.apply(picture.image, picture.width, picture.height) - exact)

    assert picture.image.size == (800, 600)
    assert 0 < differences.mean() < 2
