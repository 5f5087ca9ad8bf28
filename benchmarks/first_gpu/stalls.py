"""Measures what a new shape costs: cuDNN's attention makes a plan for each shape, again in each thread.

A new thread runs batches and prompts of many shapes, each twice; the stall is the time by which the first run takes
longer. The step measures this with cuDNN's attention, if the GPU has it, and without. Finally it compares the first two
images of a worker after the warm-up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from PIL import Image

from benchmarks.first_gpu.given import Given
from benchmarks.first_gpu.notes import Notes
from worker.engine.device import load_engine
from worker.model import Model, load_model
from worker.settings import WorkerSettings

#: The first call after a warm-up may take this many times as long as the second, and this many ms more; a plan takes
#: 400 ms.
FIRST_TIMES: Final = 5.0
FIRST_MS: Final = 100.0


def run(given: Given, notes: Notes) -> None:
    """Measure the stalls, and the first job of a worker."""
    import torch

    family = given.models[0]
    folder = given.checkpoint(family)
    model = load_model(str(folder), device=given.device)
    model.warm_up()
    sizes = range(1, 5 if given.quick else 17)
    for cudnn in (True, False):
        torch.backends.cuda.enable_cudnn_sdp(cudnn)
        stalls = _in_a_new_thread(partial(_stalls_ms, model, sizes))
        name = "with cuDNN's attention" if cudnn else "without"
        notes.figure(f"stalls {name}, ms", stalls)
        notes.line(
            f"{name}: {len(sizes)} sizes of batch stall for {sum(stalls['images'].values()):.0f} ms in all, "
            f"{len(stalls['texts'])} shapes of prompts for {sum(stalls['texts'].values()):.0f} ms"
        )
    torch.backends.cuda.enable_cudnn_sdp(True)
    settings = {"model": str(folder), "device": given.device, "metrics_port": 0}
    started = time.perf_counter()
    model, engine = load_engine(
        WorkerSettings.model_validate(settings), load_model=load_model, on_device_lost=lambda: None
    )
    start_s = time.perf_counter() - started
    image = model.prepare(Image.new("RGB", (640, 480)))
    first, second = (_timed_ms(lambda: engine.queue_image(image, "default").result()) for _ in range(2))
    engine.close()
    notes.figure("first job after the warm-up", {"start_s": start_s, "first_ms": first, "second_ms": second})
    if given.on_gpu:
        notes.check(
            "a worker's first image is not held up",
            first < FIRST_TIMES * second + FIRST_MS,
            f"{first:.0f} ms, the second {second:.0f} ms",
        )
    notes.line(
        f"a worker is ready after {start_s:.1f} s, batches of {engine.max_batch}; its first image {first:.1f} ms"
    )


def _stalls_ms(model: Model, sizes: range) -> dict[str, dict[str, float]]:
    image = model.prepare(Image.new("RGB", (640, 480)))
    found: dict[str, dict[str, float]] = {"images": {}, "texts": {}}
    for size in sizes:
        batch = [image] * size
        first, second = (_timed_ms(partial(model.embed_images, batch)) for _ in range(2))
        found["images"][str(size)] = round(first - second, 2)
    for words in sizes[:10]:
        prompts = ["fox " * words] * (words % 3 + 1)
        first, second = (_timed_ms(partial(model.embed_texts, prompts)) for _ in range(2))
        found["texts"][f"{len(prompts)} of {words} words"] = round(first - second, 2)
    return found


def _timed_ms(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


def _in_a_new_thread(work: Callable[[], Any]) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    [result] = found  # if there is none, the thread has printed why
    return result
