"""The model's own limit: its forward pass alone, on pictures that are ready, at each batch size."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from benchmarks.picture_server import picture
from worker.model import load_model


class BareModel:
    """A checkpoint outside any queue.

    Args:
        folder: the checkpoint.
    """

    def __init__(self, folder: Path) -> None:
        self._model = load_model(str(folder), device="cpu")
        self._model.warm_up()
        self._prepared = self._model.prepare(Image.open(io.BytesIO(picture(0))).convert("RGB"))

    def images_per_s(self, batch_size: int, duration_s: float) -> float:
        """Images a second of the forward pass at one batch size, over about ``duration_s`` seconds."""
        batch = [self._prepared] * batch_size
        self._model.embed_images(batch)
        images, started = 0, time.perf_counter()
        while (elapsed_s := time.perf_counter() - started) < duration_s:
            self._model.embed_images(batch)
            images += batch_size
        return images / elapsed_s

    def best(self, batch_sizes: Sequence[int], duration_s: float) -> tuple[int, float]:
        """The fastest batch size and its images a second."""
        rates = {size: self.images_per_s(size, duration_s) for size in batch_sizes}
        size = max(rates, key=rates.__getitem__)
        return size, rates[size]
