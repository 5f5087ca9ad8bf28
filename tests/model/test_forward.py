"""What a forward pass gives back when it fails: an exception that says whether to try less, or to give up."""

from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

from worker.model import Model, ModelError, ModelOutOfMemoryError, load_model
from worker.model.dual import forward_pass


def test_memory_that_the_device_does_not_have_means_a_smaller_batch_may_pass() -> None:
    with pytest.raises(ModelOutOfMemoryError) as caught, forward_pass():
        torch.empty(2**58, dtype=torch.uint8)
    assert "allocate" in str(caught.value.__cause__)


def test_pictures_of_different_keys_are_an_error_of_the_model(loaded: Callable[[str], Model]) -> None:
    clip = loaded("clip").prepare(Image.new("RGB", (40, 40)))
    align = loaded("align").prepare(Image.new("RGB", (40, 40)))
    assert clip.key != align.key
    with pytest.raises(ModelError):
        loaded("clip").embed_images([clip, align])


def test_numbers_that_are_not_finite_never_leave_the_model(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copytree(checkpoint("clip"), tmp_path / "overflowing")
    weights = load_file(folder / "model.safetensors")
    weights["visual_projection.weight"] = np.full_like(weights["visual_projection.weight"], np.inf)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model = load_model(str(folder))
    with pytest.raises(ModelError, match="not finite in float32"):
        model.embed_images([model.prepare(Image.new("RGB", (40, 40)))])
    assert np.isfinite(model.embed_texts(["a fox"])).all()
