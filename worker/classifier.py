"""Classifies a job's images: fetches each image, embeds it (which includes decoding and preparing), and ranks labels.

Each image in flight has a thread. An image that cannot be fetched, decoded or prepared fails before it joins a batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass
from functools import partial

from producer.contract.job import ClassifyJob, ClassifyManyJob, Question
from producer.contract.names import QUEUES, Queue
from producer.contract.result import ImageInfo, Result, Timings
from producer.errors import JobFailed
from worker.concurrency.budget import Budget
from worker.concurrency.cancel_scope import Cancelled, CancelScope
from worker.concurrency.shares import of_places
from worker.embeddings.image_cache import Embedding, ImageEmbeddings
from worker.embeddings.label_cache import LabelCache
from worker.embeddings.reading import Matrix
from worker.engine.failures import failure_of
from worker.fetch import Downloads
from worker.fetch.files import File, KnownFile
from worker.model.interface import HostModel, ModelError
from worker.observability.metrics import Telemetry
from worker.ranking import rank, scores


@dataclass(frozen=True, slots=True)
class Attempt:
    """One execution of a message.

    Attributes:
        scope: the deadline and cancellation of the attempt.
        queue: the message's queue, which determines the images' share of places and batches.
        queued_ms: how long the message waited in its queue; None if unknown.
        images: set only for a suspected bulk job; takes the number of images and returns, for each image, its scope, or
            the failure with which it is skipped.
        on_outcome: called once per image of a bulk message, when that image has an outcome and frees its place among
            the images in flight.
    """

    scope: CancelScope
    queue: Queue = "default"
    queued_ms: float | None = None
    images: Callable[[int], Sequence[CancelScope | JobFailed]] | None = None
    on_outcome: Callable[[], object] = lambda: None


class Classifier:
    """Answers single and bulk jobs within one worker process.

    Args:
        model: computes logits from vectors, in any thread.
        fetcher: downloads the images.
        images: embeds the images.
        labels: embeds the candidate labels.
        telemetry: counts the outcome of every image.
        concurrency: the largest number of images in flight, from single and bulk jobs together.
    """

    def __init__(
        self,
        *,
        model: HostModel,
        fetcher: Downloads[File | KnownFile[Embedding]],
        images: ImageEmbeddings,
        labels: LabelCache,
        telemetry: Telemetry,
        concurrency: int,
    ) -> None:
        self._model = model
        self._fetcher = fetcher
        self._images = images
        self._labels = labels
        self._telemetry = telemetry
        places = of_places(concurrency)
        self._places = Budget(places, "the worker was too busy to start on this image in time.")
        # The bulk messages of a queue share its threads, as many as the queue `bulk` has places. Unless places are very
        # few, this leaves some places of `high` and `default` to single jobs, which run in their callers' threads.
        self._threads = {queue: ThreadPoolExecutor(places.bulk, thread_name_prefix=f"many-{queue}") for queue in QUEUES}

    def classify(self, job: ClassifyJob, attempt: Attempt) -> Result:
        """Answer a single job.

        Raises:
            JobFailed: the job failed with one of the contract's codes.
            Cancelled: the attempt's scope was cancelled.
        """
        with self._labels.request(job.question, attempt.scope) as read_matrix:
            return self._answer(job.question, read_matrix, attempt, job.image, attempt.scope)

    def classify_many(self, job: ClassifyManyJob, attempt: Attempt) -> list[Result | JobFailed]:
        """Answer a bulk job; return a result or failure for each image, in order. Images are classified concurrently.

        Raises:
            JobFailed: the whole message failed, because of its shared arguments or its deadline.
            Cancelled: the attempt's scope was cancelled.
        """
        count = len(job.images)
        scopes = attempt.images(count) if attempt.images else [attempt.scope] * count
        with self._labels.request(job.question, attempt.scope) as read_matrix:
            answer = partial(self._answer, job.question, read_matrix, attempt)

            def one(url: str, scope: CancelScope | JobFailed) -> Result | JobFailed:
                try:
                    return scope if isinstance(scope, JobFailed) else answer(url, scope)
                except JobFailed as failure:
                    return failure.with_traceback(None)
                finally:
                    attempt.on_outcome()

            outcomes = list(self._threads[attempt.queue].map(one, job.images, scopes))
        attempt.scope.check()
        if attempt.scope.is_over:
            raise JobFailed("deadline_exceeded", "not all images of the message were classified within its time.")
        return outcomes

    def close(self) -> None:
        """Stop all threads, including the device's, and close all connections; images that still wait fail."""
        for threads in self._threads.values():
            threads.shutdown(wait=False, cancel_futures=True)
        self._images.close()
        self._fetcher.close()

    def _answer(
        self, question: Question, read_matrix: Callable[[], Matrix], attempt: Attempt, url: str, scope: CancelScope
    ) -> Result:
        try:
            result = self._classify(question, read_matrix, attempt, url, scope)
        except JobFailed as failure:
            self._telemetry.failed(failure.code)
            raise
        except Cancelled:
            self._telemetry.failed("cancelled")
            raise
        self._telemetry.succeeded(result)
        return result

    def _classify(
        self, question: Question, read_matrix: Callable[[], Matrix], attempt: Attempt, url: str, scope: CancelScope
    ) -> Result:
        with self._places.reserve(1, scope, attempt.queue):
            started_s = time.perf_counter()
            # Jobs that share a download need copies, because `embed` frees this copy's bytes before the image waits for
            # the device.
            download = scope if question.download_timeout is None else scope.within(question.download_timeout)
            file = copy(self._fetcher.fetch(url, scope=download, queue=attempt.queue))
            fetch_ms = (time.perf_counter() - started_s) * 1000
            embedded = self._images.embed(file, attempt.queue, scope)
            image = embedded.embedding
            matrix = read_matrix()
        try:
            logits = self._model.logits(image.vector, matrix)
        except ModelError as error:
            raise failure_of(error, "this image") from None
        return Result(
            ranking=rank(question.candidate_labels, scores(logits, self._model.scoring), question.top_k),
            model=self._model.name,
            revision=self._model.revision,
            image=ImageInfo(file.sha256, image.width, image.height, image.format, file.size_bytes),
            batch_size=embedded.batch_size,
            timings_ms=Timings(
                queued=attempt.queued_ms,
                fetch=round(fetch_ms, 3),
                decode=round(embedded.decode_ms, 3),
                wait=round(embedded.wait_ms, 3),
                forward=round(embedded.forward_ms, 3),
            ),
        )
