"""Small checkpoints, made once in each test run, and loaded by the worker and by Transformers."""

import importlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.model.checkpoints import make_checkpoint, pillow_tips_processor
from worker.model import Model, load_model


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that returns the folder of a family's small checkpoint."""
    root = tmp_path_factory.mktemp("checkpoints")
    return cache(lambda family: make_checkpoint(family, root / family))


@pytest.fixture(scope="session")
def loaded(checkpoint: Callable[[str], Path], device: str) -> Callable[[str], Model]:
    """Return a function that loads a family's model as the worker does; tests share it and must not change it."""
    # One thread: for towers this small, starting a second one takes longer than the work it would share.
    torch.set_num_threads(1)
    return cache(lambda family: load_model(str(checkpoint(family)), device=device, dtype="float32"))


@pytest.fixture(scope="session")
def pipeline(checkpoint: Callable[[str], Path]) -> Callable[[str], Any]:
    """Return a function that makes the reference: Transformers' zero-shot pipeline of a checkpoint, on the CPU."""

    def make(family: str) -> Any:
        import torch

        transformers: Any = importlib.import_module("transformers")
        folder = str(checkpoint(family))
        given: dict[str, Any] = {"model": folder, "tokenizer": folder, "image_processor": folder}
        if family == "tipsv2":
            given["image_processor"] = pillow_tips_processor()
        if family == "vision-text-dual-encoder":
            given["model"] = transformers.VisionTextDualEncoderModel.from_pretrained(folder)
            given["tokenizer"] = transformers.AutoTokenizer.from_pretrained(folder)
            given["image_processor"] = transformers.AutoImageProcessor.from_pretrained(folder)
        return transformers.pipeline("zero-shot-image-classification", device="cpu", dtype=torch.float32, **given)

    return cache(make)
