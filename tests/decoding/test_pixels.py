"""A decoder process returns the same pixels as decoding in the worker's own thread."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from producer.errors import JobFailed
from tests.decoding.conftest import MAX_BYTES, MAX_PIXELS, code_of, scope
from tests.images.corpus import BOMBS, DAMAGED, FOREIGN, LADEN, SLOW, THIN
from tests.images.test_pixels import FILES
from worker.concurrency.budget import Budget
from worker.decoding.decoder import DecoderOptions, PreparedPicture
from worker.decoding.images import Decoded, open_image
from worker.decoding.pool import DecoderPool
from worker.engine.capacity import DECODING_BYTES_PER_PIXEL
from worker.model.geometry import Geometry
from worker.model.pixels import PIXELS

GEOMETRIES = {
    "CLIP's": Geometry(224, Image.Resampling.BICUBIC, (224, 224)),
    "a fixed height and width": Geometry((35, 40), Image.Resampling.BILINEAR, None),
    "transparency stays": Geometry(None, Image.Resampling.BICUBIC, (9, 9), paints_white=False),
    "in two steps": Geometry(12, Image.Resampling.BICUBIC, (12, 12), reducing_gap=2.0),
    "none": None,
}
HOSTILE = {name: data for corpus in (FOREIGN, DAMAGED, BOMBS, THIN, SLOW, LADEN) for name, data in corpus.items()}


@pytest.fixture(scope="module", params=GEOMETRIES)
def pool(request: pytest.FixtureRequest) -> Iterator[DecoderPool]:
    """A pool with one process, which must survive a whole table of files."""
    budget = Budget(DECODING_BYTES_PER_PIXEL * MAX_PIXELS)
    pool = DecoderPool(DecoderOptions(MAX_PIXELS, MAX_BYTES, GEOMETRIES[request.param]), processes=1, budget=budget)
    pool.start()
    (pid,) = pool.pids
    yield pool
    assert pool.pids == [pid]
    pool.close()


def pixels_of(picture: PreparedPicture | Decoded) -> npt.NDArray[np.uint8]:
    return np.asarray(picture.image if isinstance(picture, Decoded) else picture.prepared.arrays[PIXELS])


def as_prepared(decoded: Decoded, geometry: Geometry | None) -> npt.NDArray[np.uint8]:
    if geometry is None:
        return np.asarray(decoded.image)
    return geometry.apply(decoded.image, decoded.width, decoded.height)


@pytest.mark.parametrize("name", FILES)
def test_pixels_size_format_and_transparent_colour_are_those_of_the_worker_s_own_thread(
    pool: DecoderPool, name: str
) -> None:
    geometry = pool.options.geometry
    expected = open_image(FILES[name], max_pixels=MAX_PIXELS).decode(geometry.least_side if geometry else None)

    picture = pool.decode(FILES[name], scope())

    assert (picture.width, picture.height, picture.format) == (expected.width, expected.height, expected.format)
    assert pixels_of(picture).dtype == np.uint8
    assert np.array_equal(pixels_of(picture), as_prepared(expected, geometry))
    assert isinstance(picture, Decoded) == (geometry is None)
    if isinstance(picture, Decoded):
        assert picture.image.info.get("transparency") == expected.image.info.get("transparency")


@pytest.mark.parametrize("pool", ["CLIP's"], indirect=True)
def test_a_transparent_colour_is_painted_white_if_the_geometry_says_so(pool: DecoderPool) -> None:
    plain, coloured, entry = (
        pixels_of(pool.decode(FILES[name], scope()))
        for name in ("PNG", "PNG, RGB with a transparent colour", "PNG, palette with one transparent entry")
    )
    assert np.array_equal(plain, coloured)
    assert (entry == 255).all()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_fail_with_the_same_code_and_end_no_process(pool: DecoderPool, name: str) -> None:
    expected = "ok"
    try:
        open_image(HOSTILE[name], max_pixels=MAX_PIXELS).decode()
    except JobFailed as failure:
        expected = failure.code

    before = pool.pids

    assert code_of(pool, HOSTILE[name]) == expected
    assert pool.pids == before


def test_a_file_without_bytes_has_the_code_empty(pool: DecoderPool) -> None:
    assert code_of(pool, b"") == "empty"
