"""An engine behind a socket in the test's own process, and fronts that are connected to it."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from producer.contract.names import Queue
from tests.concurrency.watched_scope import WatchedScope
from tests.eventually import eventually
from worker.concurrency.cancel_scope import CancelScope
from worker.engine.batch_queue import BatchResult
from worker.engine.local import LocalEngine
from worker.engine_process.device_use import DeviceUse
from worker.engine_process.info import info_for
from worker.engine_process.link import ask_info
from worker.engine_process.remote import RemoteEngine
from worker.engine_process.serving import Server
from worker.model import Model
from worker.model.interface import Float32, Prepared

TIMEOUT_S = 60.0


class GatedModel:
    """A real model whose forward passes on images a test can hold.

    Attributes:
        runs: for each forward pass, in order, the red of the first pixel of each image.
        running: a semaphore released when a forward pass begins.
        may_run: while clear, no forward pass ends.
        fails: called with each batch before it runs; it may raise an error.
    """

    parallel_batches = 1

    def __init__(self, model: Model) -> None:
        self._model = model
        self.runs: list[list[int]] = []
        self.running = threading.Semaphore(0)
        self.may_run = threading.Event()
        self.may_run.set()
        self.fails: Callable[[Sequence[Prepared]], None] = lambda _batch: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def embed_images(self, batch: Sequence[Prepared], parallel: int = 1) -> Float32:
        self.runs.append([int(image.arrays["pixels"][0, 0, 0]) for image in batch])
        self.running.release()
        assert self.may_run.wait(TIMEOUT_S)
        self.fails(batch)
        return self._model.embed_images(batch, parallel)


class Engines:
    """One engine on a path, and fronts that send requests to it from threads.

    Attributes:
        engine: the engine that was started last.
    """

    engine: LocalEngine

    def __init__(self, folder: Path, threads: ThreadPoolExecutor) -> None:
        self.path = folder / "engine"
        self._threads = threads
        self._ends: list[Callable[[], None]] = []

    def serve(self, model: Model | GatedModel, *, max_batch: int = 8) -> Server:
        """Start an engine."""
        real = cast(Model, model)
        engine = self.engine = LocalEngine(
            real, max_batch=max_batch, on_device_lost=lambda: None, around_batch=DeviceUse().around
        )
        server = Server(engine, *info_for(real, max_batch), self.path)
        server.keep_listening()
        self._ends += [engine.close, server.close]
        return server

    def listens(self) -> bool:
        """Return whether an engine replies, which is a moment after its socket exists."""
        try:
            ask_info(self.path)
        except OSError:
            return False
        return True

    def front(self, *, slots: int = 16, on_other_model: Callable[[], None] = lambda: None) -> RemoteEngine:
        """Return a front that is connected."""
        front = RemoteEngine(self.path, ask_info(self.path), slots=slots, on_other_model=on_other_model)
        self._ends.append(front.close)
        eventually(lambda: front.unavailable_reason is None)
        return front

    def ask(
        self, front: RemoteEngine, prepared: Prepared, queue: Queue = "default", scope: CancelScope | None = None
    ) -> "Future[BatchResult[Float32]]":
        """Embed an image in a thread; return once the engine has the image or the image waits for a slot."""
        watched = scope or WatchedScope()
        asked = self._threads.submit(front.embed_image, prepared, queue, watched)
        if isinstance(watched, WatchedScope):
            assert watched.waits.wait(TIMEOUT_S)
        return asked

    def close(self) -> None:
        """Close the fronts and then the engines."""
        for end in reversed(self._ends):
            end()


def image(model: Any, red: int) -> Prepared:
    """Return a prepared picture of noise whose top left pixel has this red, 0 to 255."""
    pixels = np.random.default_rng(red).integers(0, 256, (32, 32, 3), np.uint8)
    pixels[0, 0] = red, 0, 0
    prepared: Prepared = model.prepare(Image.fromarray(pixels))
    return prepared


def soon() -> CancelScope:
    return CancelScope(time.monotonic() + TIMEOUT_S)
