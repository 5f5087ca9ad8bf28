"""A job's way through the worker: fetch, embed (which decodes and prepares first), rank.

Called from one thread per image in flight. Everything that can be wrong with an image is found before it joins a
batch; the batch itself happens inside the engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from producer.contract import QUEUES, ClassifyJob, ClassifyManyJob, ImageInfo, Question, Queue, Result, Timings
from producer.errors import JobFailed
from worker.concurrency.budget import Budget
from worker.concurrency.cancel_scope import Cancelled, CancelScope
from worker.concurrency.shares import of_places
from worker.embeddings.of_images import File, ImageEmbeddings, KnownFile
from worker.embeddings.of_labels import LabelCache
from worker.embeddings.reading import Matrix
from worker.fetch import Downloads
from worker.model.interface import HostModel
from worker.ranking import rank, scores


class Observer(Protocol):
    """Who is told of every image's outcome."""

    def succeeded(self, result: Result) -> None:
        """One image has its ranking."""
        ...

    def failed(self, code: str) -> None:
        """One image has none."""
        ...


@dataclass(frozen=True, slots=True)
class Attempt:
    """One execution of a message.

    Attributes:
        scope: until when it is worked on.
        queue: where the message waited; its images have that queue's share of the batches.
        queued_ms: how long it waited, where that is known.
        on_outcome: called once for each image of a bulk message that needs its place no longer.
        images: says of a bulk job's images, given how many there are, in which scope each is worked on; a failure for
            one that is not worked on. For a job that was in the hands of workers that died.
    """

    scope: CancelScope
    queue: Queue = "default"
    queued_ms: float | None = None
    images: Callable[[int], Sequence[CancelScope | JobFailed]] | None = None
    on_outcome: Callable[[], object] = lambda: None


@dataclass(frozen=True, slots=True)
class _MessageContext:
    """What the images of one message share.

    Attributes:
        matrix: waits for the labels' embeddings.
    """

    question: Question
    matrix: Callable[[], Matrix]
    attempt: Attempt


class Classifier:
    """Everything one worker process holds to answer jobs.

    Args:
        model: turns vectors into logits, in any thread.
        fetcher: downloads images.
        images: embeds images, each once.
        labels: embeds candidate labels, each prompt once.
        observer: is told of every image's outcome.
        concurrency: images in flight, single and bulk together.
    """

    def __init__(
        self,
        *,
        model: HostModel,
        fetcher: Downloads[bytes | KnownFile],
        images: ImageEmbeddings,
        labels: LabelCache,
        observer: Observer,
        concurrency: int,
    ) -> None:
        self._model = model
        self._fetcher = fetcher
        self._images = images
        self._labels = labels
        self._observer = observer
        places = of_places(concurrency)
        self._places = Budget(places, "the worker was too busy to start on this image in time.")
        # Bulk messages spread their images over these threads, which leave places to single jobs of the same queue; a
        # single job runs in the thread it came in.
        self._threads = {queue: ThreadPoolExecutor(places.bulk, thread_name_prefix=f"many-{queue}") for queue in QUEUES}

    def classify(self, job: ClassifyJob, attempt: Attempt) -> Result:
        """Answer a single job.

        Raises:
            JobFailed: with one of the contract's codes.
            Cancelled: somebody has cancelled the attempt's scope.
        """
        with self._labels.request(job.question, attempt.scope) as matrix:
            return self._answer(job.image, _MessageContext(job.question, matrix, attempt), attempt.scope)

    def classify_many(self, job: ClassifyManyJob, attempt: Attempt) -> list[Result | JobFailed]:
        """Answer a bulk job: one result or failure for each image, in order; images are fetched concurrently.

        Raises:
            JobFailed: only for what concerns every image: the shared arguments and the message's own deadline.
            Cancelled: somebody has cancelled the attempt's scope.
        """
        count = len(job.images)
        scopes = attempt.images(count) if attempt.images else [attempt.scope] * count
        with self._labels.request(job.question, attempt.scope) as matrix:
            context = _MessageContext(job.question, matrix, attempt)

            def one(url: str, scope: CancelScope | JobFailed) -> Result | JobFailed:
                try:
                    return scope if isinstance(scope, JobFailed) else self._answer(url, context, scope)
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
        """Stop the threads, the device and the connections; jobs that still wait fail."""
        for threads in self._threads.values():
            threads.shutdown(wait=False, cancel_futures=True)
        self._images.close()
        self._fetcher.close()

    def _answer(self, url: str, context: _MessageContext, scope: CancelScope) -> Result:
        try:
            result = self._classify(url, context, scope)
        except JobFailed as failure:
            self._observer.failed(failure.code)
            raise
        except Cancelled:
            self._observer.failed("cancelled")
            raise
        self._observer.succeeded(result)
        return result

    def _classify(self, url: str, context: _MessageContext, scope: CancelScope) -> Result:
        question, attempt = context.question, context.attempt
        with self._places.reserve(1, scope, attempt.queue):
            started_s = time.perf_counter()
            fetched = self._fetcher.fetch(url, timeout_s=question.timeout_s, scope=scope, queue=attempt.queue)
            fetch_ms = (time.perf_counter() - started_s) * 1000
            file = File(fetched) if isinstance(fetched, bytes) else fetched
            del fetched  # or it would be held for as long as this image waits for the device
            embedded = self._images.embed(file, attempt.queue, scope)
            image = embedded.embedding
            logits = self._model.logits(image.vector, context.matrix())
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
