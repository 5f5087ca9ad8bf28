"""The traced image tower gives the network's own numbers for every batch size, or it is not used."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.model.checkpoints import SMALL
from worker.model import Model, load_model
from worker.model.families import FAMILIES
from worker.model.traced import INPUT, TracedTower

#: NaFlex: its tower takes masks in addition to the pixels, and every picture may have another shape.
NEVER_TRACED = {"siglip2"}
SIDE = 4


def noise(seed: int) -> Image.Image:
    grey = np.random.default_rng(seed).integers(0, 256, (50, 40, 3), dtype=np.uint8)
    return Image.fromarray(grey)


@pytest.mark.parametrize("family", SMALL)
def test_a_model_gives_the_same_vectors_before_and_after_its_warm_up_for_every_batch_size(
    family: str, checkpoint: Callable[[str], Path], loaded: Callable[[str], Model], device: str, rounding: float
) -> None:
    warm: Any = load_model(str(checkpoint(family)), device=device, dtype="float32")
    warm.warm_up()
    cold: Any = loaded(family)

    assert warm._image_tower.traced == (device == "cpu" and family not in NEVER_TRACED)
    assert not cold._image_tower.traced
    for count in (1, 2, 5):
        batch = [cold.prepare(noise(seed)) for seed in range(count)]
        np.testing.assert_allclose(warm.embed_images(batch), cold.embed_images(batch), atol=rounding)


class Network:
    """A network that a test makes, with the method that `pooled_image` calls."""

    def __init__(self, vectors: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._vectors = vectors
        self.calls = 0

    def get_image_features(self, pixel_values: torch.Tensor) -> Any:
        self.calls += 1
        return type("Output", (), {"pooler_output": self._vectors(pixel_values)})


def tower(vectors: Callable[[torch.Tensor], torch.Tensor]) -> tuple[TracedTower, Network]:
    network = Network(vectors)
    return TracedTower(network, FAMILIES["clip"]), network


def pixels(count: int, side: int = SIDE) -> dict[str, torch.Tensor]:
    return {INPUT: torch.ones(count, 3, side, side)}


def test_a_traced_tower_with_other_results_than_the_network_is_not_used() -> None:
    # Tracing keeps only the branch that the recorded batch took.
    doubling, _ = tower(lambda values: values.flatten(1) * (2.0 if len(values) > 2 else 1.0))

    doubling.trace(pixels(1)[INPUT])

    assert not doubling.traced
    assert doubling(pixels(3)).max() == 2.0


def test_a_tower_that_cannot_be_traced_runs_untraced() -> None:
    def fussy(values: torch.Tensor) -> torch.Tensor:
        if network.calls == 1:
            raise RuntimeError("not while recording, which comes first")
        return values.flatten(1)

    plain, network = tower(fussy)

    plain.trace(pixels(1)[INPUT])

    assert not plain.traced
    assert plain(pixels(2)).shape == (2, 3 * SIDE * SIDE)


def test_images_of_another_shape_run_in_the_untraced_network() -> None:
    recorded, network = tower(lambda values: values.flatten(1))
    recorded.trace(pixels(1)[INPUT])
    assert recorded.traced
    calls = network.calls

    recorded(pixels(2))
    assert network.calls == calls
    assert recorded(pixels(2, side=6)).shape == (2, 3 * 6 * 6)
    assert network.calls == calls + 1
