from __future__ import annotations

from collections.abc import Iterator

import pytest
from PIL import Image

from producer.errors import JobFailed
from worker.decoding.images import open_image, prepare_pillow

MAX_PIXELS = 50_000_000


@pytest.fixture(autouse=True)
def prepared() -> Iterator[None]:
    """Configure Pillow as a worker does."""
    before = Image.MAX_IMAGE_PIXELS
    prepare_pillow(MAX_PIXELS)
    yield
    Image.MAX_IMAGE_PIXELS = before


def code_of(data: bytes, max_pixels: int = MAX_PIXELS) -> str:
    """Return the code with which decoding the bytes fails, or ``ok`` if it succeeds."""
    failure = _failure(data, max_pixels)
    return "ok" if failure is None else failure.code


def sentence_of(data: bytes, max_pixels: int = MAX_PIXELS) -> str:
    """Return the message with which decoding the bytes fails; empty if it succeeds."""
    failure = _failure(data, max_pixels)
    return "" if failure is None else failure.message


def _failure(data: bytes, max_pixels: int) -> JobFailed | None:
    try:
        open_image(data, max_pixels=max_pixels).decode()
    except JobFailed as error:
        failure = error
    else:
        return None
    assert failure.__cause__ is None
    assert failure.__context__ is None
    return failure
