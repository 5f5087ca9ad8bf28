"""Classifies a job's images: fetch, embed (which decodes and prepares first), rank.

Each image in flight has a thread. Any error in an image is found before it joins a batch; the engine runs the batch.
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
from worker.embeddings.of_images import Embedding, ImageEmbeddings
from worker.embeddings.of_labels import LabelCache
from worker.embeddings.reading import Matrix
from worker.fetch import Downloads
from worker.fetch.files import File, KnownFile
from worker.model.interface import HostModel
from worker.observability.metrics import Telemetry
from worker.ranking import rank, scores


@dataclass(frozen=True, slots=True)
class Attempt:
    """One execution of a message.

    Attributes:
        scope: the deadline and cancellation of the attempt.
        queue: the queue of the message; its images get that queue's share of the batches.
        queued_ms: how long the message waited; None if unknown.
        images: for a suspected bulk job: returns, given the number of images, each image's scope, or the failure of
            one that does not run.
        on_outcome: called once for each image of a bulk message that no longer needs its place.
    """

    scope: CancelScope
    queue: Queue = "default"
    queued_ms: float | None = None
    images: Callable[[int], Sequence[CancelScope | JobFailed]] | None = None
    on_outcome: Callable[[], object] = lambda: None


class Classifier:
    """Answers single and bulk jobs within one worker process.

    Args:
        model: turns vectors into logits, in any thread.
        fetcher: downloads images.
        images: embeds images, each once.
        labels: embeds candidate labels, each prompt once.
        telemetry: counts every image's outcome.
        concurrency: the most images in flight, single and bulk together.
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
        # Bulk messages spread their images over these threads, of which there are few enough to leave places to single
        # jobs of the same queue; a single job runs in its caller's thread.
        self._threads = {queue: ThreadPoolExecutor(places.bulk, thread_name_prefix=f"many-{queue}") for queue in QUEUES}

    def classify(self, job: ClassifyJob, attempt: Attempt) -> Result:
        """Answer a single job.

        Raises:
            JobFailed: with one of the contract's codes.
            Cancelled: the attempt's scope was cancelled.
        """
        with self._labels.request(job.question, attempt.scope) as matrix:
            return self._answer(job.question, matrix, attempt, job.image, attempt.scope)

    def classify_many(self, job: ClassifyManyJob, attempt: Attempt) -> list[Result | JobFailed]:
        """Answer a bulk job: one result or failure for each image, in order; images are fetched concurrently.

        Raises:
            JobFailed: only for errors of the whole message: its shared arguments and its deadline.
            Cancelled: the attempt's scope was cancelled.
        """
        count = len(job.images)
        scopes = attempt.images(count) if attempt.images else [attempt.scope] * count
        with self._labels.request(job.question, attempt.scope) as matrix:
            answer = partial(self._answer, job.question, matrix, attempt)

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
            raise JobFailed("deadline_exceeded", "the message's images were not all answered within its time.")
        return outcomes

    def close(self) -> None:
        """Stop the threads and the device, and close the connections; jobs that still wait fail."""
        for threads in self._threads.values():
            threads.shutdown(wait=False, cancel_futures=True)
        self._images.close()
        self._fetcher.close()

    def _answer(
        self, question: Question, matrix: Callable[[], Matrix], attempt: Attempt, url: str, scope: CancelScope
    ) -> Result:
        try:
            result = self._classify(question, matrix, attempt, url, scope)
        except JobFailed as failure:
            self._telemetry.failed(failure.code)
            raise
        except Cancelled:
            self._telemetry.failed("cancelled")
            raise
        self._telemetry.succeeded(result)
        return result

    def _classify(
        self, question: Question, matrix: Callable[[], Matrix], attempt: Attempt, url: str, scope: CancelScope
    ) -> Result:
        with self._places.reserve(1, scope, attempt.queue):
            started_s = time.perf_counter()
            # A copy, since another job may share the download; its bytes go before this image waits for the device.
            download = scope if question.timeout_s is None else scope.within(question.timeout_s)
            file = copy(self._fetcher.fetch(url, scope=download, queue=attempt.queue))
            fetch_ms = (time.perf_counter() - started_s) * 1000
            embedded = self._images.embed(file, attempt.queue, scope)
            image = embedded.embedding
            logits = self._model.logits(image.vector, matrix())
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
