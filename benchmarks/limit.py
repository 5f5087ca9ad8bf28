"""The model's own limit: its forward pass alone, on pictures that are ready, at each batch size."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from benchmarks.picture_server import picture
from worker.model import load_model


class BareModel:
    """A checkpoint outside any queue.

    Args:
        folder: the checkpoint.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self._model = load_model(str(folder), device=device)
        self._model.warm_up()
        self._prepared = self._model.prepare(Image.open(io.BytesIO(picture(0))).convert("RGB"))

    @property
    def parallel_batches(self) -> int:
        """Batches that the worker runs at once on this device."""
        return self._model.parallel_batches

    def images_per_s(self, batch_size: int, duration_s: float, parallel: int = 1) -> float:
        """Images a second of the forward pass at one batch size, over about ``duration_s`` seconds.

        Args:
            parallel: batches that run at once, each on its share of the cores.
        """
        batch = [self._prepared] * batch_size
        self._model.embed_images(batch)
        started = time.perf_counter()

        def loop() -> int:
            images = 0
            while time.perf_counter() - started < duration_s:
                self._model.embed_images(batch, parallel)
                images += batch_size
            return images

        with ThreadPoolExecutor(parallel) as threads:
            images = sum(future.result() for future in [threads.submit(loop) for _ in range(parallel)])
        return images / (time.perf_counter() - started)

    def best(self, batch_sizes: Sequence[int], duration_s: float) -> tuple[int, float]:
        """The fastest batch size and its images a second."""
        rates = {size: self.images_per_s(size, duration_s) for size in batch_sizes}
        size = max(rates, key=rates.__getitem__)
        return size, rates[size]
