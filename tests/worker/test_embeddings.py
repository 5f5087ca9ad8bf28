"""Each picture is decoded and run once, whatever it is asked about, and what is kept of it is bounded.

With real small models: the same scores with and without the cache.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from producer.contract import ClassifyJob, Question, Queue, Result
from producer.errors import JobFailed
from tests.acceptance.origin import Origin
from tests.images.files import encoded
from tests.model.conftest import checkpoint, loaded
from tests.worker.watched_scope import WatchedScope
from worker.budget import Budget
from worker.cancel_scope import Cancelled, CancelScope
from worker.classifier import Attempt, Classifier
from worker.decoding.preparing import InThreads
from worker.delivery.fairness import WEIGHTS
from worker.embeddings import OVERHEAD_BYTES, Embedded, File, ImageEmbeddings
from worker.engine import LocalEngine
from worker.fetch import CoalescingFetcher, Fetcher, parse_allow
from worker.labels import LabelCache
from worker.model.interface import Float32, Model, ModelError, Prepared
from worker.telemetry import Telemetry

__all__ = ["checkpoint", "loaded"]

TIMEOUT_S = 60.0
MAX_BYTES = 1_000_000


class WatchedModel:
    """A model that counts what it does, and can be held or made to fail.

    Attributes:
        prepared: images that were decoded and prepared.
        runs: the size of each forward pass over images.
        running: released when one begins.
        may_run: none ends while this is clear.
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
    """`ImageEmbeddings` around a watched model, asked in the test's thread or in others."""

    def __init__(self, model: Model, threads: ThreadPoolExecutor, max_bytes: int) -> None:
        self.watched = WatchedModel(model)
        self.model = cast(Model, self.watched)
        preparing = InThreads(self.model, Budget(10**9, "no memory"), geometry=None, max_pixels=10**6)
        self.engine = LocalEngine(self.model, max_batch=8, weights=WEIGHTS, on_device_lost=lambda: None)
        self.embeddings = ImageEmbeddings(preparing, self.engine, max_bytes=max_bytes)
        self._threads = threads

    def embed(self, data: bytes) -> Embedded:
        return self.embeddings.embed(File(data), "default", soon())

    def lead(self, data: bytes, scope: CancelScope | None = None) -> Future[Embedded]:
        """Ask while the device is held; the picture's forward pass runs when this returns."""
        asked = self._threads.submit(self.embeddings.embed, File(data), "default", scope or soon())
        assert self.watched.running.acquire(timeout=TIMEOUT_S)
        return asked

    def follow(self, data: bytes, queue: Queue = "default") -> Future[Embedded]:
        """Ask for the same meanwhile; this one waits when this returns."""
        scope = WatchedScope()
        asked = self._threads.submit(self.embeddings.embed, File(data), queue, scope)
        assert scope.waits.wait(TIMEOUT_S)
        return asked


MakeImages = Callable[..., Images]


@pytest.fixture
def make_images(loaded: Callable[[str], Model]) -> Iterator[MakeImages]:
    with ExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor())

        def make(family: str = "clip", max_bytes: int = MAX_BYTES) -> Images:
            images = Images(loaded(family), threads, max_bytes)
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


def test_the_same_bytes_are_decoded_and_run_once(images: Images) -> None:
    first, again = images.embed(picture()), images.embed(picture())

    assert (images.watched.prepared, images.watched.runs) == (1, [1])
    np.testing.assert_array_equal(again.embedding.vector, first.embedding.vector)
    assert (again.embedding.width, again.embedding.height, again.embedding.format) == (60, 40, "PNG")
    assert (images.embeddings.hits, images.embeddings.misses) == (1, 1)


def test_an_image_that_needed_no_forward_pass_says_so(images: Images) -> None:
    first, again = images.embed(picture()), images.embed(picture())

    assert first.batch_size == 1
    assert first.decode_ms > 0
    assert first.forward_ms > 0
    assert (again.batch_size, again.decode_ms, again.wait_ms, again.forward_ms) == (0, 0, 0, 0)


def test_other_bytes_of_the_same_pixels_are_another_picture(images: Images) -> None:
    images.embed(picture(kind="PNG"))

    assert images.embed(picture(kind="GIF")).batch_size == 1


def test_what_is_kept_stays_within_its_bytes_and_the_least_recently_used_goes_first(make_images: MakeImages) -> None:
    whole = make_images()
    whole.embed(picture())
    images = make_images(max_bytes=3 * whole.embeddings.kept_bytes)
    oldest, used, *others = (picture(red) for red in range(5))

    images.embed(oldest)
    images.embed(used)
    for data in others:
        images.embed(data)
        images.embed(used)

    assert images.embeddings.kept_bytes == 3 * whole.embeddings.kept_bytes
    assert images.embed(used).batch_size == 0
    assert images.embed(oldest).batch_size == 1


def test_an_embedding_that_is_kept_does_not_keep_its_batch(images: Images) -> None:
    embedding = images.embed(picture()).embedding

    assert embedding.vector.base is None
    assert embedding.nbytes == embedding.vector.nbytes + OVERHEAD_BYTES


def test_nothing_is_kept_where_the_cache_is_off(make_images: MakeImages) -> None:
    images = make_images(max_bytes=0)

    assert [images.embed(picture()).batch_size for _ in range(2)] == [1, 1]
    assert (images.embeddings.kept_bytes, images.embeddings.hits) == (0, 0)


def test_an_image_that_failed_is_not_remembered(images: Images) -> None:
    images.watched.fails = True
    with pytest.raises(JobFailed, match="model_error"):
        images.embed(picture())
    for _ in range(2):
        with pytest.raises(JobFailed, match="undecodable"):
            images.embed(picture()[:-40])
    images.watched.fails = False

    assert images.embed(picture()).batch_size == 1


def test_jobs_with_the_same_picture_at_the_same_moment_share_its_forward_pass(images: Images) -> None:
    images.watched.may_run.clear()
    first = images.lead(picture())
    others = [images.follow(picture()) for _ in range(3)]

    images.watched.may_run.set()

    assert first.result(TIMEOUT_S).batch_size == 1
    for other in others:
        embedded = other.result(TIMEOUT_S)
        assert embedded.embedding is first.result().embedding
        assert (embedded.batch_size, embedded.decode_ms, embedded.forward_ms) == (0, 0, 0)
        assert embedded.wait_ms > 0
    assert images.watched.runs == [1]


def test_cancelling_the_job_whose_picture_is_run_harms_no_other_with_the_same(images: Images) -> None:
    images.watched.may_run.clear()
    scope = soon()
    first = images.lead(picture(), scope)
    other = images.follow(picture())

    scope.cancel()

    with pytest.raises(Cancelled):
        first.result(TIMEOUT_S)
    images.watched.may_run.set()
    assert other.result(TIMEOUT_S).batch_size == 1


def test_an_urgent_job_waits_for_no_other_queue_s_turn(images: Images) -> None:
    images.watched.may_run.clear()
    scope = WatchedScope()
    images.lead(picture())
    with ThreadPoolExecutor() as threads:
        urgent = threads.submit(images.embeddings.embed, File(picture()), "high", scope)
        assert scope.waits.wait(TIMEOUT_S)
        images.watched.may_run.set()

        assert urgent.result(TIMEOUT_S).batch_size == 1


def test_a_file_is_let_go_before_its_image_waits_for_the_device(images: Images) -> None:
    file = File(picture())
    images.embeddings.embed(file, "default", soon())
    known = File(picture())
    images.embeddings.embed(known, "default", soon())

    assert (file.take(), known.take()) == (b"", b"")
    assert file.sha256 == known.sha256
    assert file.size_bytes == len(picture())


def answers(images: Images, origin: Origin, *questions: tuple[str, list[str]]) -> list[Result]:
    """What a worker's classifier says of pictures that it downloads."""
    fetcher = Fetcher(max_bytes=10**6, timeout_s=TIMEOUT_S, allow=parse_allow(f"127.0.0.1/32:{origin.port}"))
    classifier = Classifier(
        model=images.model,
        fetcher=CoalescingFetcher(fetcher, TIMEOUT_S),
        images=images.embeddings,
        labels=LabelCache(images.engine),
        observer=Telemetry(),
        concurrency=2,
    )
    results = [
        classifier.classify(ClassifyJob(origin.url(path), Question(labels)), Attempt(soon()))
        for path, labels in questions
    ]
    classifier.close()
    return results


@pytest.mark.parametrize("family", ["clip", "siglip", "blip-2"])
def test_new_labels_for_a_known_picture_get_the_scores_they_get_without_the_cache(
    family: str, make_images: MakeImages
) -> None:
    with Origin() as origin:
        origin.pages["/owl.png"] = origin.pages["/copy-of-owl"] = ("image/png", picture())
        questions = [("/owl.png", ["fox", "bear"]), ("/copy-of-owl", ["an owl", "a fox", "two cats"])]
        cached, uncached = make_images(family), make_images(family, max_bytes=0)

        (_, with_cache), (_, without) = answers(cached, origin, *questions), answers(uncached, origin, *questions)

    assert (cached.watched.runs, uncached.watched.runs) == ([1], [1, 1])
    assert [score.label for score in with_cache.ranking] == [score.label for score in without.ranking]
    assert [score.score for score in with_cache.ranking] == pytest.approx(
        [score.score for score in without.ranking], rel=0, abs=1e-6
    )
    assert (with_cache.batch_size, without.batch_size) == (0, 1)
    assert with_cache.image == without.image
