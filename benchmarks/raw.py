"""Measures the bare forward pass, from pixels that are already on the device in the network's dtype.

Its rate is the limit with which all others are compared: `Model.embed_images` also stacks, copies and waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from PIL import Image

from worker.model import Model
from worker.model.traced import INPUT

#: This many passes run before the measurement, so that kernels are chosen and memory is allocated.
WARM_UP: Final = 3
#: The time of this many passes determines how many passes fill the measurement.
TRIAL: Final = 3


class Raw:
    """One model's image tower with one batch of noise.

    Args:
        model: a model that `worker.model.load_model` returned.
    """

    def __init__(self, model: Model, size: int) -> None:
        import torch

        # The benchmark measures the network inside the model, which the interface does not expose.
        self._inside: Any = model
        self._torch: Any = torch
        self.size = size
        height, width, _ = model.prepare(Image.new("RGB", (640, 480))).arrays["pixels"].shape
        dtype = getattr(torch, model.dtype)
        self._pixels = torch.randn((size, 3, height, width), dtype=torch.float32).to(model.device, dtype)
        self._on_gpu = model.device != "cpu"

    def eager_per_s(self, seconds: float) -> float:
        """Return the images per second of the pass as a worker runs it, layer by layer."""
        with self._torch.inference_mode():
            return self._per_s(self._run, seconds)

    def graph_per_s(self, seconds: float) -> float | None:
        """Return the images per second of the pass as a CUDA graph, without launch costs; None on the CPU."""
        if not self._on_gpu:
            return None
        torch = self._torch
        with torch.inference_mode():
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(WARM_UP):
                    self._run()
            torch.cuda.current_stream().wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._run()
            return self._per_s(graph.replay, seconds)

    def launch_ms(self) -> float:
        """Return the time to launch one pass without waiting for it; on the CPU, the time of the pass itself."""
        with self._torch.inference_mode():
            self._run()
            self._wait()
            started = time.perf_counter()
            self._run()
            taken = time.perf_counter() - started
            self._wait()
            return taken * 1000

    def _run(self) -> Any:
        return self._inside._image_tower({INPUT: self._pixels})

    def _wait(self) -> None:
        if self._on_gpu:
            self._torch.cuda.synchronize()

    def _per_s(self, run: Callable[[], object], seconds: float) -> float:
        for _ in range(WARM_UP):
            run()
        passes = max(TRIAL, int(seconds / max(1e-6, self._timed_s(run, TRIAL) / TRIAL)))
        return self.size * passes / self._timed_s(run, passes)

    def _timed_s(self, run: Callable[[], object], passes: int) -> float:
        self._wait()
        started = time.perf_counter()
        for _ in range(passes):
            run()
        self._wait()
        return time.perf_counter() - started
