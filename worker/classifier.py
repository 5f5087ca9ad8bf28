"""A job's way through the worker: fetch, decode, prepare, embed, rank.

Called from one thread per image in flight. Everything that can be wrong with an image is found before it joins a
batch; the batch itself happens inside the engine.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from producer.contract import ClassifyJob, ClassifyManyJob, ImageInfo, Question, Result, Timings
from producer.errors import JobFailed
from worker.capacity import PixelBudget
from worker.engine import Engine
from worker.images import open_image
from worker.labels import LabelCache, Matrix
from worker.model.interface import Model, ModelError
from worker.ranking import rank, scores


class Download(Protocol):
    """What the classifier needs of a fetcher."""

    def fetch(self, url: str, *, timeout_s: float | None = None, deadline: float | None = None) -> bytes:
        """The body at a URL, within the worker's limits; raises `JobFailed`."""
        ...

    def close(self) -> None:
        """Close every connection."""
        ...


class Observer(Protocol):
    """Who is told of every image's outcome."""

    def succeeded(self, result: Result) -> None:
        """One image has its ranking."""
        ...

    def failed(self, code: str) -> None:
        """One image has none."""
        ...


class Classifier:
    """Everything one worker process holds to answer jobs.

    Args:
        model: prepares images and turns vectors into logits, in any thread.
        engine: owns the device.
        fetcher: downloads images.
        labels: embeds candidate labels, each prompt once.
        pixels: bounds the decoded pixels in flight.
        observer: is told of every image's outcome.
        concurrency: images in flight, single and bulk together.
        max_pixels: of one image.
    """

    def __init__(
        self,
        *,
        model: Model,
        engine: Engine,
        fetcher: Download,
        labels: LabelCache,
        pixels: PixelBudget,
        observer: Observer,
        concurrency: int,
        max_pixels: int,
    ) -> None:
        self._model = model
        self._engine = engine
        self._fetcher = fetcher
        self._labels = labels
        self._pixels = pixels
        self._observer = observer
        self._max_pixels = max_pixels
        self._slots = threading.BoundedSemaphore(concurrency)
        # Bulk messages spread their images over these threads; a single job runs in the thread it came in.
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="bulk")

    def classify(self, job: ClassifyJob, *, deadline: float, queued_ms: float | None) -> Result:
        """Answer a single job.

        Args:
            deadline: on `time.monotonic`'s clock.
            queued_ms: how long the message waited, where that is known.

        Raises:
            JobFailed: with one of the contract's codes.
        """
        matrix = self._labels.request(job.question)
        return self._answer(job.image, job.question, matrix, deadline, queued_ms)

    def classify_many(
        self,
        job: ClassifyManyJob,
        *,
        deadline: float,
        queued_ms: float | None,
        escort: Callable[[int], AbstractContextManager[None]] | None = None,
    ) -> list[Result | JobFailed]:
        """Answer a bulk job: one result or failure for each image, in order; images are fetched concurrently.

        Args:
            escort: entered with each image's number, one after the other: the images then run one by one.

        Raises:
            JobFailed: only for what concerns every image: the shared arguments and the message's own deadline.
        """
        matrix = self._labels.request(job.question)

        def one(number: int, url: str) -> Result | JobFailed:
            try:
                with escort(number) if escort else nullcontext():
                    return self._answer(url, job.question, matrix, deadline, queued_ms)
            except JobFailed as failure:
                return failure.with_traceback(None)

        spread = map if escort else self._threads.map
        outcomes = list(spread(one, range(len(job.images)), job.images))
        if time.monotonic() > deadline:
            raise JobFailed("deadline_exceeded", "the message's images were not all answered within its time.")
        return outcomes

    def close(self) -> None:
        """Stop the threads, the device and the connections; jobs that still wait fail."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._engine.close()
        self._fetcher.close()

    def _answer(
        self,
        url: str,
        question: Question,
        matrix: Callable[[float], Matrix],
        deadline: float,
        queued_ms: float | None,
    ) -> Result:
        try:
            result = self._classify(url, question, matrix, deadline, queued_ms)
        except JobFailed as failure:
            self._observer.failed(failure.code)
            raise
        self._observer.succeeded(result)
        return result

    def _classify(
        self,
        url: str,
        question: Question,
        matrix: Callable[[float], Matrix],
        deadline: float,
        queued_ms: float | None,
    ) -> Result:
        if not self._slots.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise JobFailed("deadline_exceeded", "the worker was too busy to start on this image in time.")
        try:
            started = time.perf_counter()
            data = self._fetcher.fetch(url, timeout_s=question.timeout_s, deadline=deadline)
            fetched = time.perf_counter()
            opened = open_image(data, max_pixels=self._max_pixels)
            with self._pixels.reserve(opened.pixels, deadline):
                decoded = opened.decode()
                try:
                    prepared = self._model.prepare(decoded.image)
                except ModelError:
                    raise JobFailed("model_error", "the model's processor refused this image.") from None
                decoded.image.close()
            ready = time.perf_counter()
            ride = self._engine.embed_image(prepared, deadline)
            logits = self._model.logits(ride.output, matrix(deadline))
        finally:
            self._slots.release()
        return Result(
            ranking=rank(question.candidate_labels, scores(logits, self._model.scoring), question.top_k),
            model=self._model.name,
            revision=self._model.revision,
            image=ImageInfo(hashlib.sha256(data).hexdigest(), decoded.width, decoded.height, decoded.format, len(data)),
            batch_size=ride.batch_size,
            timings_ms=Timings(
                queued=queued_ms,
                fetch=_ms(fetched - started),
                decode=_ms(ready - fetched),
                wait=round(ride.wait_ms, 3),
                forward=round(ride.run_ms, 3),
            ),
        )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
