"""`ImageEmbeddings` with a real small model whose work a test observes."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, cast

import pytest
from PIL import Image

from producer.contract.names import Queue
from tests.concurrency.watched_scope import WatchedScope
from tests.images.files import encoded
from tests.model.conftest import checkpoint, loaded
from worker.concurrency.budget import Budget
from worker.concurrency.cancel_scope import CancelScope
from worker.decoding.preparing import InThreads
from worker.embeddings.image_cache import Embedded, ImageEmbeddings, Shared
from worker.engine.local import LocalEngine
from worker.fetch.files import File
from worker.model.interface import Float32, Model, ModelError, Prepared

__all__ = ["checkpoint", "loaded"]

TIMEOUT_S = 60.0
MAX_BYTES = 1_000_000


class WatchedModel:
    """A model that counts its work, and that a test can hold or make fail.

    Attributes:
        prepared: how many images were decoded and prepared.
        runs: the size of each forward pass on images.
        running: a semaphore released when a forward pass begins.
        may_run: while clear, no forward pass ends.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self.prepared = 0
        self.runs: list[int] = []
        self.running = threading.Semaphore(0)
        self.may_run = threading.Event()
        self.may_run.set()
        self.fails = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def prepare(self, image: Image.Image) -> Prepared:
        self.prepared += 1
        return self._model.prepare(image)

    def embed_images(self, batch: Sequence[Prepared], parallel: int = 1) -> Float32:
        self.runs.append(len(batch))
        self.running.release()
        assert self.may_run.wait(TIMEOUT_S)
        if self.fails:
            raise ModelError("no")
        return self._model.embed_images(batch, parallel)


class Images:
    """`ImageEmbeddings` with a watched model, called in the test's thread or in others."""

    def __init__(self, model: Model, threads: ThreadPoolExecutor, max_bytes: int, shared: Shared | None) -> None:
        self.watched = WatchedModel(model)
        self.model = cast(Model, self.watched)
        preparing = InThreads(self.model, Budget(10**9, "no memory"), geometry=None, max_pixels=10**6)
        self.engine = LocalEngine(self.model, max_batch=8, on_device_lost=lambda: None)
        self.embeddings = ImageEmbeddings(preparing, self.engine, max_bytes=max_bytes, shared=shared)
        self._threads = threads

    def embed(self, data: bytes) -> Embedded:
        return self.embeddings.embed(File(data), "default", soon())

    def lead(self, data: bytes, scope: CancelScope | None = None) -> Future[Embedded]:
        """Embed a picture in a thread while the device is held; return once its forward pass runs."""
        asked = self._threads.submit(self.embeddings.embed, File(data), "default", scope or soon())
        assert self.watched.running.acquire(timeout=TIMEOUT_S)
        return asked

    def follow(self, data: bytes, queue: Queue = "default") -> Future[Embedded]:
        """Embed the same picture in another thread; return once that thread waits."""
        scope = WatchedScope()
        asked = self._threads.submit(self.embeddings.embed, File(data), queue, scope)
        assert scope.waits.wait(TIMEOUT_S)
        return asked


MakeImages = Callable[..., Images]


@pytest.fixture
def make_images(loaded: Callable[[str], Model]) -> Iterator[MakeImages]:
    with ExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor())

        def make(family: str = "clip", max_bytes: int = MAX_BYTES, shared: Shared | None = None) -> Images:
            images = Images(loaded(family), threads, max_bytes, shared)
            stack.callback(images.embeddings.close)
            stack.callback(images.watched.may_run.set)
            return images

        yield make


@pytest.fixture
def images(make_images: MakeImages) -> Images:
    return make_images()


def soon() -> CancelScope:
    return CancelScope(time.monotonic() + TIMEOUT_S)


def picture(red: int = 200, kind: str = "PNG") -> bytes:
    image = Image.linear_gradient("L").resize((60, 40)).convert("RGB")
    image.paste((red, 30, 90), (10, 5, 40, 30))
    return encoded(image, kind)
