"""From a file to its embedding, each picture once: decoded, prepared and run, or known already.

An image's vector depends on its bytes and on the model alone, whatever labels it is compared with: that is what
`worker.model.interface.Model` promises, and a process has one model. So the digest of the bytes is the key.
"""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from producer.contract import Queue
from producer.errors import JobFailed
from worker.concurrency.cancel_scope import CancelScope
from worker.concurrency.lru import Bounded
from worker.concurrency.single_flight import SingleFlight
from worker.decoding.preparing import Preparing
from worker.engine.interface import Engine

#: What Python takes beside a vector's numbers: the array's head, the embedding and its place in the cache; measured.
OVERHEAD_BYTES: Final = 306


class File:
    """A downloaded file: described for as long as its job lasts, and held no longer than somebody may need it."""

    def __init__(self, data: bytes) -> None:
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.size_bytes = len(data)
        self._data = data

    def take(self) -> bytes:
        """The bytes, which whoever takes them holds alone; none the second time."""
        data, self._data = self._data, b""
        return data


@dataclass(frozen=True, slots=True)
class Embedding:
    """What is kept of an image.

    Attributes:
        vector: (d,), or (q, d) where a family has several vectors an image; unit length, read-only.
        width: of the decoded image, in pixels, upright.
        height: likewise.
        format: ``JPEG``, ``PNG``, ``WEBP`` or ``GIF``.
    """

    vector: NDArray[np.float32]
    width: int
    height: int
    format: str

    @property
    def nbytes(self) -> int:
        """What it takes in memory."""
        return self.vector.nbytes + OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file that was not downloaded, since the embedding it would make is at hand."""

    sha256: str
    size_bytes: int
    embedding: Embedding


@dataclass(frozen=True, slots=True)
class Embedded:
    """One image's embedding, and what was done for it.

    Attributes:
        batch_size: images in the forward pass it rode in; 0: it needed none.
        wait_ms: for the device; where it needed no forward pass, for another job's image of the same bytes.
    """

    embedding: Embedding
    batch_size: int = 0
    decode_ms: float = 0.0
    wait_ms: float = 0.0
    forward_ms: float = 0.0


class Shared(Protocol):
    """Where embeddings are found that other processes made; it never raises."""

    def recall(self, sha256: str) -> Embedding | None:
        """The embedding of the file with this digest, if it is there."""

    def remember(self, sha256: str, embedding: Embedding) -> None:
        """Keep one for others."""


class ImageEmbeddings:
    """Answers with the embeddings of files. Thread-safe.

    Args:
        preparing: decodes images and makes of them what the model takes.
        engine: owns the device.
        max_bytes: of embeddings that are kept; 0: each file is decoded and run, whatever came before.
        shared: asked for what is not kept here; nothing without embeddings that are kept.

    Attributes:
        hits: images that needed no forward pass of their own.
        misses: images that did. Neither is counted while nothing is kept.
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
        """What the embeddings take that are kept now."""
        return self._known.nbytes

    def recall(self, sha256: str) -> Embedding | None:
        """The embedding of the file with this digest, while it is kept, here or where it is shared."""
        with self._lock:
            known = self._known.recall(sha256)
        if known is None and self._shared is not None:
            known = self._shared.recall(sha256)
            if known is not None:
                self._remember(sha256, known)
        return known

    def embed(self, file: File | KnownFile, queue: Queue, scope: CancelScope) -> Embedded:
        """Recall a file's embedding, or wait for the one that another job makes of it, or make it.

        Raises:
            JobFailed: the image is refused, or as `Engine.embed_image`.
            Cancelled: somebody has cancelled the scope.
        """
        if isinstance(file, KnownFile):
            with self._lock:
                self.hits += 1
            return Embedded(file.embedding)
        if not self._max_bytes:
            return self._embed(file, queue, scope)
        asked_s = time.perf_counter()
        # A queue's images wait for no other queue's: its turn on the device may come later. Nor does any job wait for a
        # suspect's: it runs alone, as itself, when its turn has come.
        if scope.suspect is not None:
            return self._counted(self._recall_or_embed(file, queue, scope))
        key, work = (file.sha256, queue), partial(self._recall_or_embed, file, queue, scope)
        try:
            embedded, is_anothers = self._flights.do(key, scope, work)
        except TimeoutError:
            raise JobFailed("deadline_exceeded", "the image was not embedded within the job's time.") from None
        if is_anothers:
            file.take()
            embedded = Embedded(embedded.embedding, wait_ms=(time.perf_counter() - asked_s) * 1000)
        return self._counted(embedded)

    def close(self) -> None:
        """End the device's threads and the decoders; images that are under way fail."""
        self._engine.close()
        self._preparing.close()

    def _counted(self, embedded: Embedded) -> Embedded:
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
        # Many images wait for the device at once, and none of them holds its file.
        picture = self._preparing.prepare(file.take(), scope, queue)
        ready_s = time.perf_counter()
        ride = self._engine.embed_image(picture.prepared, queue, scope)
        ride.output.setflags(write=False)
        return Embedded(
            Embedding(ride.output, picture.width, picture.height, picture.format),
            ride.batch_size,
            decode_ms=(ready_s - began_s) * 1000,
            wait_ms=ride.wait_ms,
            forward_ms=ride.run_ms,
        )
