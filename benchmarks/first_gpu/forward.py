"""Measures the bare forward pass, `embed_images`, and the parts of the time of one batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.first_gpu.given import Given
from benchmarks.first_gpu.notes import Notes
from benchmarks.fronts import different, rate_of
from benchmarks.raw import Raw
from worker.model import Model, load_model
from worker.model.interface import Prepared
from worker.model.traced import INPUT


def run(given: Given, notes: Notes) -> None:
    """Measure each model."""
    import torch

    for family in given.models:
        model = load_model(str(given.checkpoint(family)), device=given.device)
        model.warm_up()
        raw: dict[str, dict[str, float | None]] = {}
        for size in given.batches:
            bare = Raw(model, size)
            raw[str(size)] = {"eager": bare.eager_per_s(given.seconds(1)), "launch_ms": bare.launch_ms()}
            notes.figure(f"{family}, raw images/s", raw)
            if given.on_gpu:
                try:
                    raw[str(size)]["graph"] = bare.graph_per_s(given.seconds(1))
                except RuntimeError as error:  # a graph cannot hold some operation; the other figures are still useful
                    notes.figure(f"{family}, no graph of {size}", str(error)[:300])
                torch.backends.cuda.enable_cudnn_sdp(False)
                raw[str(size)]["eager without cuDNN's attention"] = bare.eager_per_s(given.seconds(0.7))
                torch.backends.cuda.enable_cudnn_sdp(True)
                notes.figure(f"{family}, raw images/s", raw)
        best = max(given.batches, key=lambda size: raw[str(size)]["eager"] or 0)
        images = _images(model)
        embed = {}
        for size in sorted({given.batches[0], best}):
            batch = [images[number % len(images)] for number in range(size)]
            embed[size] = rate_of(partial(_embedded, model, batch), 1, given.seconds(2))
            notes.figure(f"{family}, embed_images images/s", {str(size): rate for size, rate in embed.items()})
            notes.figure(f"{family}, one batch of {size}, ms", _parts_ms(model, batch))
        fastest = max(rate or 0 for sizes in raw.values() for way, rate in sizes.items() if way != "launch_ms")
        notes.figure(f"{family}, fastest raw images/s", fastest)
        notes.line(
            f"{family} in {model.dtype}: raw {fastest:,.0f} images/s, best eager batch {best}; embed_images "
            + ", ".join(f"{rate:,.0f} in {size}" for size, rate in embed.items())
        )


def _embedded(model: Model, batch: list[Prepared]) -> int:
    model.embed_images(batch)
    return len(batch)


def _images(model: Model) -> list[Prepared]:
    from PIL import Image

    return different(model.prepare(Image.new("RGB", (640, 480))).arrays["pixels"].shape)


def _parts_ms(model: Any, batch: list[Prepared]) -> dict[str, float]:
    """Return the median time of each part alone; parts that overlap in `embed_images` do not overlap here."""
    import torch

    on_gpu = model.device != "cpu"

    def timed_ms(work: Callable[[], object]) -> float:
        taken = []
        for _ in range(5):
            started = time.perf_counter()
            work()
            if on_gpu:
                torch.cuda.synchronize()
            taken.append((time.perf_counter() - started) * 1000)
        return round(float(np.median(taken)), 3)

    with torch.inference_mode():
        arrays = [image.arrays["pixels"] for image in batch]
        stacked = model._stack(arrays)
        inputs = model._images(batch)
        vectors = model._image_tower({INPUT: inputs[INPUT]})
        return {
            "stack": timed_ms(lambda: model._stack(arrays)),
            "copy": timed_ms(lambda: model._upload(stacked)),
            "stack, copy and normalise": timed_ms(lambda: model._images(batch)),
            "forward": timed_ms(lambda: model._image_tower({INPUT: inputs[INPUT]})),
            "to the host": timed_ms(lambda: model._unit(vectors)),
            "all": timed_ms(lambda: model.embed_images(batch)),
        }
