"""Each picture is decoded and run once, whatever its jobs' labels, and the cache of embeddings is bounded.

With real small models, scores are the same with and without the cache.
"""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any

import numpy as np
import pytest

from producer.contract.job import ClassifyJob, Question
from producer.contract.result import Result
from producer.errors import JobFailed
from tests.acceptance.origin import Origin
from tests.concurrency.watched_scope import WatchedScope
from tests.embeddings.watched_images import (
    MAX_BYTES,
    TIMEOUT_S,
    Images,
    MakeImages,
    checkpoint,
    images,
    loaded,
    make_images,
    picture,
    soon,
)
from tests.fetch.cached_pictures import says
from tests.fetch.servers import Exchange, ScriptedServer
from worker.classifier import Attempt, Classifier
from worker.concurrency.cancel_scope import Cancelled
from worker.embeddings.image_cache import OVERHEAD_BYTES, Embedding
from worker.embeddings.label_cache import LabelCache
from worker.fetch import CoalescingFetcher, Fetcher, UrlPolicy
from worker.fetch.files import File, KnownFile
from worker.fetch.http_cache import CachingFetcher
from worker.observability.metrics import Telemetry

__all__ = ["checkpoint", "images", "loaded", "make_images"]


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


def test_the_cache_stays_within_its_bytes_and_evicts_the_least_recently_used(make_images: MakeImages) -> None:
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


def test_a_cached_embedding_does_not_keep_its_batch_in_memory(images: Images) -> None:
    embedding = images.embed(picture()).embedding

    assert embedding.vector.base is None
    assert embedding.nbytes == embedding.vector.nbytes + OVERHEAD_BYTES


def test_with_the_cache_off_nothing_is_kept(make_images: MakeImages) -> None:
    images = make_images(max_bytes=0)

    assert [images.embed(picture()).batch_size for _ in range(2)] == [1, 1]
    assert (images.embeddings.kept_bytes, images.embeddings.hits) == (0, 0)


def test_the_failure_of_an_image_is_not_cached(images: Images) -> None:
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


def test_cancelling_the_job_that_runs_a_picture_affects_no_other_job_with_that_picture(images: Images) -> None:
    images.watched.may_run.clear()
    scope = soon()
    first = images.lead(picture(), scope)
    other = images.follow(picture())

    scope.cancel()

    with pytest.raises(Cancelled):
        first.result(TIMEOUT_S)
    images.watched.may_run.set()
    assert other.result(TIMEOUT_S).batch_size == 1


def test_an_urgent_job_does_not_wait_for_another_queue_s_forward_pass(images: Images) -> None:
    images.watched.may_run.clear()
    scope = WatchedScope()
    images.lead(picture())
    with ThreadPoolExecutor() as threads:
        urgent = threads.submit(images.embeddings.embed, File(picture()), "high", scope)
        assert scope.waits.wait(TIMEOUT_S)
        images.watched.may_run.set()

        assert urgent.result(TIMEOUT_S).batch_size == 1


def test_a_file_s_bytes_are_freed_before_its_image_waits_for_the_device(images: Images) -> None:
    file = File(picture())
    images.embeddings.embed(file, "default", soon())
    known = File(picture())
    images.embeddings.embed(known, "default", soon())

    assert (file.take(), known.take()) == (b"", b"")
    assert file.sha256 == known.sha256
    assert file.size_bytes == len(picture())


@contextmanager
def classifying(images: Images, port: int) -> Iterator[Classifier]:
    """Make a worker's classifier that may download from one port of this machine."""
    fetcher = Fetcher(UrlPolicy.parsed("80", f"127.0.0.1/32:{port}", ""), max_bytes=10**6, timeout_s=TIMEOUT_S)
    caching = CachingFetcher(fetcher, images.embeddings.recall, max_bytes=MAX_BYTES)
    classifier = Classifier(
        model=images.model,
        fetcher=CoalescingFetcher[File | KnownFile[Embedding]](caching, TIMEOUT_S),
        images=images.embeddings,
        labels=LabelCache(images.engine),
        telemetry=Telemetry(),
        concurrency=2,
    )
    yield classifier
    classifier.close()


def answers(images: Images, port: int, *questions: tuple[str, list[str]]) -> list[Result]:
    """Return a classifier's results for pictures that it downloads or has cached."""
    with classifying(images, port) as classifier:
        return [
            classifier.classify(ClassifyJob(f"http://127.0.0.1:{port}{path}", Question(labels)), Attempt(soon()))
            for path, labels in questions
        ]


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The data that the code has hashed."""
    found: list[bytes] = []
    digest_of = hashlib.sha256

    def sha256(data: bytes = b"", **options: Any) -> Any:
        found.append(data)
        return digest_of(data, **options)

    monkeypatch.setattr(hashlib, "sha256", sha256)
    return found


def test_a_downloaded_file_is_hashed_once(make_images: MakeImages, hashed: list[bytes]) -> None:
    with ScriptedServer(says("Cache-Control: max-age=600", body=picture())) as server:
        first, again = answers(make_images(), server.port, ("/owl.png", ["fox"]), ("/owl.png", ["bear"]))

    assert hashed.count(picture()) == 1
    assert first.image == again.image


def test_jobs_that_share_a_download_share_its_digest_and_can_each_read_the_file(
    make_images: MakeImages, hashed: list[bytes]
) -> None:
    asked, may_answer, waiting = Event(), Event(), WatchedScope()

    def script(exchange: Exchange) -> None:
        asked.set()
        may_answer.wait(TIMEOUT_S)
        exchange.answer(picture())

    images = make_images(max_bytes=0)  # so that each job decodes the file itself
    with (
        ScriptedServer(script) as server,
        classifying(images, server.port) as classifier,
        ThreadPoolExecutor() as threads,
    ):
        job = ClassifyJob(server.url(), Question(["fox"]))
        leading = threads.submit(classifier.classify, job, Attempt(soon()))
        assert asked.wait(TIMEOUT_S)
        following = threads.submit(classifier.classify, job, Attempt(waiting))
        assert waiting.waits.wait(TIMEOUT_S)
        may_answer.set()
        results = [leading.result(TIMEOUT_S), following.result(TIMEOUT_S)]

    assert (len(server.requests), images.watched.prepared) == (1, 2)
    assert hashed.count(picture()) == 1
    assert results[0].image == results[1].image


@pytest.mark.parametrize("family", ["clip", "siglip", "blip-2"])
def test_new_labels_for_a_cached_picture_get_the_same_scores_as_without_the_cache(
    family: str, make_images: MakeImages
) -> None:
    with Origin() as origin:
        origin.pages["/owl.png"] = origin.pages["/copy-of-owl"] = ("image/png", picture())
        questions = [("/owl.png", ["fox", "bear"]), ("/copy-of-owl", ["an owl", "a fox", "two cats"])]
        cached, uncached = make_images(family), make_images(family, max_bytes=0)

        (_, with_cache), (_, without) = (
            answers(cached, origin.port, *questions),
            answers(uncached, origin.port, *questions),
        )

    assert (cached.watched.runs, uncached.watched.runs) == ([1], [1, 1])
    assert [score.label for score in with_cache.ranking] == [score.label for score in without.ranking]
    assert [score.score for score in with_cache.ranking] == pytest.approx(
        [score.score for score in without.ranking], rel=0, abs=1e-6
    )
    assert (with_cache.batch_size, without.batch_size) == (0, 1)
    assert with_cache.image == without.image


@pytest.mark.parametrize("headers", [["Cache-Control: max-age=600"], ['ETag: "v1"']])
def test_a_picture_that_http_caching_saves_from_a_download_gets_the_same_result(
    headers: list[str], make_images: MakeImages
) -> None:
    questions = [("/owl.png", ["fox", "bear"]), ("/owl.png", ["an owl", "a fox", "two cats"])]
    with ScriptedServer(says(*headers, body=picture())) as server:
        cached, uncached = make_images(), make_images(max_bytes=0)

        (_, known), (_, downloaded) = (
            answers(cached, server.port, *questions),
            answers(uncached, server.port, *questions),
        )

    assert (cached.embeddings.hits, known.batch_size) == (1, 0)
    assert known.image == downloaded.image
    assert [score.score for score in known.ranking] == pytest.approx(
        [score.score for score in downloaded.ranking], rel=0, abs=1e-6
    )
