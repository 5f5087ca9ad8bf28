"""Every intended difference in docs/equal-scores.md; `test_parity` tests what is equal."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.images.conftest import MAX_PIXELS
from tests.images.corpus import LADEN
from tests.images.files import encoded, photo
from tests.model.test_parity import LABELS, Scores, prompts, scores
from worker.decoding.images import open_image
from worker.model import Model

REFUSED_BY_PILLOW = ["a text with a wrong checksum", "text that unpacks to 100 MB", "profile that unpacks to 100 MB"]


def ours(model: Model, data: bytes) -> Scores:
    [image] = model.embed_images([model.prepare(open_image(data, max_pixels=MAX_PIXELS).decode().image)])
    return scores(model, image, model.embed_texts(prompts(LABELS)))


def theirs(pipeline: Any, image: Image.Image) -> list[float]:
    found = {entry["label"]: entry["score"] for entry in pipeline(image, candidate_labels=LABELS)}
    return [found[label] for label in LABELS]


def test_a_worker_scales_sixteen_bit_grey_to_eight_bits_where_the_pipeline_sees_white(
    loaded: Callable[[str], Model], pipeline: Callable[[str], Any]
) -> None:
    levels = np.asarray(photo(160, 120).convert("L"), dtype=np.uint16)
    data = encoded(Image.fromarray(levels * 257), "PNG")

    assert ours(loaded("clip"), data) == pytest.approx(
        theirs(pipeline("clip"), Image.fromarray(levels.astype(np.uint8)).convert("RGB")), abs=1e-5
    )
    clipped = theirs(pipeline("clip"), Image.open(io.BytesIO(data)))
    assert clipped == pytest.approx(theirs(pipeline("clip"), Image.new("RGB", (160, 120), "white")), abs=1e-2)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_orientation_in_more_than_a_megabyte_of_exif_is_ignored(kind: str) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    data = encoded(photo(), kind, exif=turned.tobytes() + b"\0" * 1_000_000)

    assert open_image(encoded(photo(), kind, exif=turned.tobytes()), max_pixels=MAX_PIXELS).decode().image.size == (
        48,
        64,
    )
    assert ImageOps.exif_transpose(Image.open(io.BytesIO(data))).size == (48, 64)
    assert open_image(data, max_pixels=MAX_PIXELS).decode().image.size == (64, 48)


@pytest.mark.parametrize("name", [f"PNG, {what}" for what in REFUSED_BY_PILLOW])
def test_a_picture_with_metadata_that_pillow_refuses_is_still_decoded(name: str) -> None:
    with pytest.raises((SyntaxError, ValueError, OSError)):
        Image.open(io.BytesIO(LADEN[name])).load()

    assert open_image(LADEN[name], max_pixels=MAX_PIXELS).decode().image.size == (160, 120)
