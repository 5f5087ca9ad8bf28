"""The worker prepares the same pixels as the checkpoint's own image processor, only faster."""

import importlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.model.pictures import scene
from worker.model import Model
from worker.model.interface import ModelError
from worker.model.pixels import PIXELS, SplitPreparation, WholePreparation, preparation


def _transformers(name: str, **settings: Any) -> Any:
    # Imported only here: every process of a test run loads this file, but few need Transformers, which takes seconds.
    return getattr(importlib.import_module("transformers"), name)(**settings)


SIZES = [
    *((1, 1), (1, 2), (2, 1), (1, 40), (40, 1), (3, 2), (5, 7), (31, 33), (32, 32), (33, 31), (64, 64)),
    *((61, 97), (224, 224), (225, 223), (320, 240), (333, 500), (1000, 37), (640, 481)),
]
CLIP = partial(_transformers, "CLIPImageProcessorPil")
SQUARE = {"height": 35, "width": 35}

PROCESSORS: dict[str, Callable[[], Any]] = {
    "clip": CLIP,
    "clip, small": partial(CLIP, size={"shortest_edge": 30}, crop_size=SQUARE),  # a crop larger than the picture
    "clip, oblong": partial(CLIP, size={"height": 40, "width": 51}, crop_size={"height": 33, "width": 36}),
    "clip, no crop": partial(CLIP, size=SQUARE, do_center_crop=False),
    "clip, crop only": partial(CLIP, do_resize=False, crop_size=SQUARE),
    "chinese clip": partial(_transformers, "ChineseCLIPImageProcessorPil"),
    "siglip": partial(_transformers, "SiglipImageProcessorPil"),
    "blip": partial(_transformers, "BlipImageProcessorPil"),
    "clipseg": partial(_transformers, "ViTImageProcessorPil"),
    "align": partial(
        _transformers,
        "EfficientNetImageProcessorPil",
        do_center_crop=True,
        include_top=False,
        rescale_offset=True,
        rescale_factor=1 / 127.5,
    ),
    **{
        f"resampling {mode.name}": partial(CLIP, size=SQUARE, do_center_crop=False, resample=mode)
        for mode in Image.Resampling
    },
}


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(scene(width, height, seed=width + height))


@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_equal_those_of_the_processor_bit_for_bit(name: str) -> None:
    processor = PROCESSORS[name]()
    prepare = preparation(processor).prepare
    for width, height in SIZES:
        prepared = prepare(picture(width, height))
        expected = processor(images=[picture(width, height)], do_rescale=False, do_normalize=False)["pixel_values"][0]
        assert prepared.arrays[PIXELS].dtype == np.uint8
        assert np.array_equal(np.moveaxis(prepared.arrays[PIXELS], -1, 0), expected), (width, height)


@pytest.mark.parametrize("name", PROCESSORS)
def test_rescaled_and_normalised_values_equal_those_of_the_processor(name: str) -> None:
    processor = PROCESSORS[name]()
    split = preparation(processor)
    assert isinstance(split, SplitPreparation)
    every_value = Image.fromarray(np.arange(768, dtype=np.uint16).reshape(16, 16, 3).astype(np.uint8))
    for image in (every_value, picture(333, 500)):
        expected = processor(images=[image])["pixel_values"][0]
        assert np.abs(split.affine(split.prepare(image).arrays[PIXELS]) - expected).max() < 1e-6


def _negative() -> Any:
    """Return a processor that does something that its settings do not show."""

    class Negative(type(CLIP())):  # type: ignore[misc]  # a class that is found as the test runs
        def resize(self, image: Any, *arguments: Any, **settings: Any) -> Any:
            return super().resize(255 - image, *arguments, **settings)

    return Negative()


def _squared() -> Any:
    """Return a processor whose values are no linear function of the pixels."""

    class Squared(type(CLIP())):  # type: ignore[misc]  # a class that is found as the test runs
        def normalize(self, image: Any, *arguments: Any, **settings: Any) -> Any:
            return super().normalize(image, *arguments, **settings) ** 2

    return Squared()


WHOLE: dict[str, Callable[[], Any]] = {
    "patches": partial(_transformers, "Siglip2ImageProcessorPil", patch_size=8, max_num_patches=16),
    "two limits": partial(CLIP, size={"shortest_edge": 32, "longest_edge": 40}, do_center_crop=False),
    "its own resize": _negative,
    "its own arithmetic": _squared,
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_processor_that_cannot_be_split_is_used_as_a_whole(name: str) -> None:
    processor = WHOLE[name]()
    whole = preparation(processor)
    assert isinstance(whole, WholePreparation)
    for width, height in ((61, 97), (333, 500)):
        prepared = whole.prepare(picture(width, height))
        expected = processor(images=[picture(width, height)], return_tensors="np")
        assert set(prepared.arrays) == set(expected)
        assert all(np.array_equal(array, expected[name][0]) for name, array in prepared.arrays.items())


def test_two_pictures_have_the_same_key_only_if_their_arrays_can_be_stacked() -> None:
    whole = preparation(WHOLE["two limits"]())
    wide, tall, also_wide = (whole.prepare(picture(*size)) for size in ((60, 50), (50, 60), (120, 100)))
    assert wide.key == also_wide.key
    assert wide.key != tall.key
    assert wide.arrays["pixel_values"].shape != tall.arrays["pixel_values"].shape


def test_a_picture_that_would_shrink_to_nothing_is_an_error_with_its_size() -> None:
    with pytest.raises(ModelError, match="1x1000 pixels"):
        preparation(WHOLE["two limits"]()).prepare(picture(1, 1000))


def test_many_threads_prepare_the_same_arrays_as_one(loaded: Callable[[str], Model]) -> None:
    pictures = [picture(20 + number, 90 - number) for number in range(60)]
    for family in ("clip", "siglip2"):
        prepare = loaded(family).prepare
        with ThreadPoolExecutor(16) as threads:
            together = list(threads.map(prepare, pictures))
        for alone, shared in zip(map(prepare, pictures), together, strict=True):
            assert alone.key == shared.key
            assert all(np.array_equal(alone.arrays[name], shared.arrays[name]) for name in alone.arrays)
