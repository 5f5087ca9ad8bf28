"""Embeds images: returns a cached embedding, or decodes and prepares the image and has the engine embed it.

An image's vector depends only on the image's bytes and on the model, and a process has one model. So the digest of the
bytes is the cache's key.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from producer.contract.names import Queue
from worker.concurrency.cancel_scope import CancelScope
from worker.concurrency.lru import Bounded
from worker.concurrency.single_flight import SingleFlight
from worker.decoding.preparing import Preparing
from worker.engine.interface import Engine
from worker.fetch.files import File, KnownFile

#: The measured memory of a cache entry besides the vector's numbers: the array's header, the `Embedding`, the cache's
#: slot.
OVERHEAD_BYTES: Final = 306


@dataclass(frozen=True, slots=True)
class Embedding:
    """An image's embedding in the form in which it is cached.

    Attributes:
        vector: (d,), or (q, d) for families with q vectors per image; unit length, read-only.
        width: width of the decoded, upright image in pixels.
        height: height of that image in pixels.
        format: one of `worker.decoding.images.FORMATS`.
    """

    vector: NDArray[np.float32]
    width: int
    height: int
    format: str

    @property
    def nbytes(self) -> int:
        """The memory of the cache entry, in bytes."""
        return self.vector.nbytes + OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class Embedded:
    """An image's embedding, and the work that this job did for it.

    Attributes:
        batch_size: the number of images in its forward pass; 0 if it needed none.
        wait_ms: the wait for the device or, without a forward pass, for another job that embedded the same bytes.
    """

    embedding: Embedding
    batch_size: int = 0
    decode_ms: float = 0.0
    wait_ms: float = 0.0
    forward_ms: float = 0.0


class Shared(Protocol):
    """A cache of embeddings shared with other processes; it never raises."""

    def recall(self, sha256: str) -> Embedding | None:
        """Return the cached embedding of the file with this digest, if any."""

    def remember(self, sha256: str, embedding: Embedding) -> None:
        """Store an embedding for other processes."""


class ImageEmbeddings:
    """Embeds files, and caches the embeddings. Thread-safe.

    Args:
        preparing: decodes images and prepares them for the model.
        engine: embeds prepared images.
        max_bytes: the bound on the cached embeddings; 0 disables caching.
        shared: a second cache for images that this one lacks; unused if caching is disabled.

    Attributes:
        hits: the number of images that needed no forward pass of their own.
        misses: the number of images that needed one. Neither is counted while caching is disabled.
    """

    def __init__(self, preparing: Preparing, engine: Engine, *, max_bytes: int, shared: Shared | None = None) -> None:
        self._preparing = preparing
        self._engine = engine
        self._max_bytes = max_bytes
        self._shared = shared
        self._lock = threading.Lock()
        self._known: Bounded[Embedding] = Bounded(max_bytes)
        self._flights: SingleFlight[Embedded] = SingleFlight()
        self.hits = 0
        self.misses = 0

    @property
    def kept_bytes(self) -> int:
        """The memory of the cached embeddings, in bytes."""
        return self._known.nbytes

    def recall(self, sha256: str) -> Embedding | None:
        """Return the embedding of the file with this digest from this cache or the shared one; None if both lack it."""
        with self._lock:
            known = self._known.recall(sha256)
        if known is None and self._shared is not None:
            known = self._shared.recall(sha256)
            if known is not None:
                self._remember(sha256, known)
        return known

    def embed(self, file: File | KnownFile[Embedding], queue: Queue, scope: CancelScope) -> Embedded:
        """Return a file's embedding from a cache or from another job that is computing it, or else compute it.

        Raises:
            JobFailed: as `Preparing.prepare` and `Engine.embed_image`.
            Cancelled: the scope was cancelled.
        """
        if isinstance(file, KnownFile):
            with self._lock:
                self.hits += 1
            return Embedded(file.embedding)
        if not self._max_bytes:
            return self._embed(file, queue, scope)
        began_s = time.perf_counter()
        # Jobs share work only within a queue, because images of another queue may wait longer for the device. No job
        # waits for a suspect's image, which may wait long for its turn to run alone.
        if scope.suspect is not None:
            return self._count(self._recall_or_embed(file, queue, scope))
        # The job that embeds the image may wait long for a decoder, and its own clock bounds its work.
        resume = scope.pause_clock()

        def work() -> Embedded:
            resume()
            return self._recall_or_embed(file, queue, scope)

        try:
            embedded, is_from_another = self._flights.do((file.sha256, queue), scope, work)
        finally:
            resume()
        if is_from_another:
            file.take()
            embedded = Embedded(embedded.embedding, wait_ms=(time.perf_counter() - began_s) * 1000)
        return self._count(embedded)

    def close(self) -> None:
        """Close the engine and the decoders; images in progress fail."""
        self._engine.close()
        self._preparing.close()

    def _count(self, embedded: Embedded) -> Embedded:
        with self._lock:
            self.hits += not embedded.batch_size
            self.misses += embedded.batch_size > 0
        return embedded

    def _recall_or_embed(self, file: File, queue: Queue, scope: CancelScope) -> Embedded:
        known = self.recall(file.sha256)
        if known is not None:
            file.take()
            return Embedded(known)
        embedded = self._embed(file, queue, scope)
        self._remember(file.sha256, embedded.embedding)
        if self._shared is not None:
            self._shared.remember(file.sha256, embedded.embedding)
        return embedded

    def _remember(self, sha256: str, embedding: Embedding) -> None:
        with self._lock:
            self._known.remember(sha256, embedding)

    def _embed(self, file: File, queue: Queue, scope: CancelScope) -> Embedded:
        began_s = time.perf_counter()
        # `take` drops the file's own reference, so the many images that wait for the device do not keep their bytes.
        picture = self._preparing.prepare(file.take(), scope, queue)
        ready_s = time.perf_counter()
        result = self._engine.embed_image(picture.prepared, queue, scope)
        result.output.setflags(write=False)
        return Embedded(
            Embedding(result.output, picture.width, picture.height, picture.format),
            result.batch_size,
            decode_ms=(ready_s - began_s) * 1000,
            wait_ms=result.wait_ms,
            forward_ms=result.run_ms,
        )
