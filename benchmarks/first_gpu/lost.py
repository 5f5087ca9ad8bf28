"""Tests an image that breaks its engine's device: it must fail after two engines, and all others be answered."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from benchmarks.first_gpu.breaking import PIXEL
from benchmarks.first_gpu.given import Given
from benchmarks.first_gpu.notes import Notes
from producer.errors import JobFailed
from worker.concurrency.cancel_scope import CancelScope
from worker.engine_process.link import ask_info
from worker.engine_process.remote import RemoteEngine
from worker.model.pixels import prepared

IMAGES: Final = 16
DEATHS: Final = 2
TIMEOUT_S: Final = 250.0


class Kept:
    """A program that is started again whenever it ends, as the launcher does.

    Attributes:
        ended_s: the times at which its processes ended, by `time.monotonic`.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._command, self._environment = command, {**os.environ, **environment}
        self.ended_s: list[float] = []
        self._ends = False
        self._process = self._start()
        self._thread = threading.Thread(target=self._keep)
        self._thread.start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, env=self._environment)

    def _keep(self) -> None:
        while True:
            self._process.wait()
            if self._ends:
                return
            self.ended_s.append(time.monotonic())
            self._process = self._start()

    def close(self) -> None:
        """End the program for good."""
        self._ends = True
        while self._thread.is_alive():
            self._process.kill()
            self._thread.join(0.2)


@contextmanager
def kept(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[Kept]:
    """Keep a program running within this context."""
    program = Kept(command, environment)
    try:
        yield program
    finally:
        program.close()


def run(given: Given, notes: Notes) -> None:
    """Run the test with two fronts."""
    environment = {
        "NAMESHOT_MODEL": str(given.checkpoint(given.models[0])),
        "NAMESHOT_DEVICE": given.device,
        "NAMESHOT_LOG_LEVEL": "WARNING",
    }
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(IMAGES) as threads:
        path = Path(folder) / "engine"
        command = [sys.executable, "-m", "benchmarks.first_gpu.breaking", str(path)]
        with kept(command, environment) as engines:
            while not path.exists():
                time.sleep(0.1)
            info = ask_info(path)
            if info.geometry is None:
                raise RuntimeError("this step needs a model with a `Geometry`")
            fronts = [RemoteEngine(path, info, slots=IMAGES, on_other_model=lambda: None) for _ in range(2)]
            noise = np.random.default_rng(0)
            shape = info.geometry.apply(Image.new("RGB", (640, 480))).shape
            scope = CancelScope(time.monotonic() + TIMEOUT_S)

            def outcome(number: int) -> str:
                pixels = noise.integers(0, 255, shape, np.uint8)  # values below 255, so that only image 0 breaks it
                if number == 0:
                    pixels[0, 0] = PIXEL
                try:
                    fronts[number % 2].embed_image(prepared(pixels), "default", scope)
                except JobFailed as failure:
                    return failure.code
                return "answered"

            started_s = time.monotonic()
            outcomes = list(threads.map(outcome, range(IMAGES)))
            all_s = time.monotonic() - started_s
            for front in fronts:
                front.close()
            deaths = [ended_s - started_s for ended_s in engines.ended_s]
    notes.figure("outcomes", outcomes)
    notes.figure("engines ended after, s", deaths)
    notes.figure("all answered after, s", all_s)
    notes.check("the picture that breaks the device fails", outcomes[0] == "model_error", outcomes[0])
    innocent = outcomes[1:].count("answered")
    notes.check("its neighbours are answered", innocent == IMAGES - 1, f"{innocent} of {IMAGES - 1}")
    notes.check("two engines die of it", len(deaths) == DEATHS, len(deaths))
    notes.line(
        f"{outcomes[0]} after {len(deaths)} engines, {innocent} of {IMAGES - 1} others answered, {all_s:.0f} s in all"
    )
