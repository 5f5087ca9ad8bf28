"""Workers share embeddings through Redis, and a Redis that fails or holds bad values fails no image."""

import logging
import os
import shutil
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import redis

from producer.broker.urls import endpoint
from tests.embeddings.watched_images import MakeImages, make_images, picture
from tests.model.conftest import checkpoint, loaded
from tests.valkey_server import ValkeyServer
from worker.embeddings.image_cache import Embedding
from worker.embeddings.shared import PAUSE_S, SharedEmbeddings
from worker.model import load_model
from worker.model.identity import identity
from worker.model.interface import Model, ModelLoadError

__all__ = ["checkpoint", "loaded", "make_images"]

KEY = "nameshot:embeddings:a-model"
MAX_BYTES = 1_000_000


@pytest.fixture
def store(valkey_of_this_run: ValkeyServer) -> Iterator[redis.Redis]:
    """The shared cache's server, as its administrator, with an empty cache."""
    with valkey_of_this_run.connect(1) as store:
        store.delete(KEY, f"{KEY}:used")
        yield store


def shared(valkey: ValkeyServer, max_bytes: int = MAX_BYTES) -> SharedEmbeddings:
    """Return a worker's connection to the shared cache, in the worker's role."""
    return SharedEmbeddings(endpoint(valkey.url(1, "worker"), "NAMESHOT_SHARED_CACHE_URL"), KEY, max_bytes=max_bytes)


def embedding(seed: int = 0, shape: tuple[int, ...] = (512,)) -> Embedding:
    vector = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return Embedding(vector / np.linalg.norm(vector, axis=-1, keepdims=True), 640, 480, "JPEG")


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("family", ["clip", "blip-2"])
def test_a_picture_that_one_worker_embedded_is_neither_decoded_nor_run_by_another(
    family: str, valkey_of_this_run: ValkeyServer, make_images: MakeImages
) -> None:
    first, second = (make_images(family, shared=shared(valkey_of_this_run)) for _ in range(2))

    made, found, again = first.embed(picture()), second.embed(picture()), second.embed(picture())

    assert (made.batch_size, found.batch_size, again.batch_size) == (1, 0, 0)
    assert (second.watched.prepared, second.watched.runs) == (0, [])
    np.testing.assert_array_equal(found.embedding.vector, made.embedding.vector)
    assert found.embedding.vector.shape == made.embedding.vector.shape
    assert (found.embedding.width, found.embedding.height, found.embedding.format) == (60, 40, "PNG")


@pytest.mark.usefixtures("store")
def test_a_worker_asks_redis_only_once_for_an_embedding_that_it_then_caches_itself(
    valkey_of_this_run: ValkeyServer, make_images: MakeImages
) -> None:
    make_images(shared=shared(valkey_of_this_run)).embed(picture())
    asked = shared(valkey_of_this_run)
    images = make_images(shared=asked)

    for _ in range(3):
        images.embed(picture())

    assert (asked.hits, asked.misses) == (1, 0)
    assert (images.embeddings.hits, images.embeddings.misses) == (3, 0)


@pytest.mark.parametrize("shape", [(64,), (512,), (32, 256)])
def test_the_cache_in_redis_stays_within_its_bytes_and_evicts_the_least_recently_used(
    shape: tuple[int, ...], valkey_of_this_run: ValkeyServer, store: redis.Redis
) -> None:
    cache = shared(valkey_of_this_run, 20 * MAX_BYTES if len(shape) == 2 else MAX_BYTES)
    used, unused = "aa" * 32, "bb" * 32
    cache.remember(used, embedding(0, shape))
    cache.remember(unused, embedding(1, shape))

    for number in range(5_000 if shape == (64,) else 1_000):
        cache.remember(os.urandom(32).hex(), embedding(number % 7, shape))
        assert cache.recall(used) is not None

    taken_bytes = [store.memory_usage(key, samples=0) or 0 for key in (KEY, f"{KEY}:used")]
    assert 0.5 < sum(taken_bytes) / cache.max_bytes < 1
    assert cache.recall(unused) is None
    assert store.hlen(KEY) == store.zcard(f"{KEY}:used")


def test_a_shared_cache_that_no_worker_uses_expires(valkey_of_this_run: ValkeyServer, store: redis.Redis) -> None:
    shared(valkey_of_this_run).remember("aa" * 32, embedding())

    assert 0 < store.ttl(KEY) <= 7 * 86_400
    assert 0 < store.ttl(f"{KEY}:used") <= 7 * 86_400


HEAD = struct.pack("<IIBB", 640, 480, 0, 0)
UNIT = embedding().vector.tobytes()


@pytest.mark.parametrize(
    "value",
    [
        b"",
        HEAD[:5],
        HEAD,
        HEAD + UNIT[:-1],
        HEAD + UNIT[:-4],
        HEAD + bytes(len(UNIT)),
        HEAD + np.full(512, np.nan, np.float32).tobytes(),
        HEAD + np.full(512, 7.0, np.float32).tobytes(),
        HEAD + embedding(0, (256,)).vector.tobytes(),
        struct.pack("<IIBB", 640, 480, 9, 0) + UNIT,
        struct.pack("<IIBB", 640, 480, 0, 3) + UNIT,
        struct.pack("<IIBB", 0, 480, 0, 0) + UNIT,
    ],
    ids=lambda value: f"{len(value)} bytes",
)
def test_a_bad_value_is_not_used_and_is_overwritten(
    value: bytes, valkey_of_this_run: ValkeyServer, store: redis.Redis
) -> None:
    cache, digest = shared(valkey_of_this_run), "cc" * 32
    cache.remember("aa" * 32, embedding(3))  # so that the cache knows the shape of the model's vectors
    store.hset(KEY, bytes.fromhex(digest), value)

    assert cache.recall(digest) is None
    cache.remember(digest, embedding())
    assert cache.recall(digest) is not None


def test_a_key_of_a_wrong_type_is_counted_as_a_failure(valkey_of_this_run: ValkeyServer, store: redis.Redis) -> None:
    store.set(KEY, "text")
    cache = shared(valkey_of_this_run)

    assert cache.recall("aa" * 32) is None
    assert cache.failures == 1


@pytest.fixture
def a_long_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the pause after a failure longer than the whole test."""
    monkeypatch.setattr("worker.embeddings.shared.PAUSE_S", 600.0)


@pytest.mark.usefixtures("a_long_pause")
def test_while_redis_is_down_images_are_embedded_without_it_after_one_failure(
    own_valkey: ValkeyServer, make_images: MakeImages, caplog: pytest.LogCaptureFixture
) -> None:
    cache = shared(own_valkey)
    images = make_images(shared=cache)
    images.embed(picture(1))
    own_valkey.stop()

    with caplog.at_level(logging.WARNING):
        assert [images.embed(picture(red)).batch_size for red in range(2, 6)] == [1, 1, 1, 1]

    (said,) = [record.getMessage() for record in caplog.records if record.name == "worker.embeddings.shared"]
    assert f"127.0.0.1:{own_valkey.port}/1" in said
    assert "s3cret" not in said
    assert cache.failures == 1


@pytest.mark.usefixtures("a_long_pause")
def test_a_redis_that_does_not_answer_is_not_asked_again_during_a_pause(
    own_valkey: ValkeyServer, make_images: MakeImages
) -> None:
    cache = shared(own_valkey)
    images = make_images(shared=cache)
    images.embed(picture(1))
    own_valkey.freeze()

    for red in range(2, 12):
        assert images.embed(picture(red)).batch_size == 1

    assert cache.failures == 1  # a failure takes TIMEOUT_S, or twice that on an open connection


def test_a_redis_that_works_again_is_used_after_the_pause(
    own_valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = shared(own_valkey)
    own_valkey.stop()
    assert cache.recall("aa" * 32) is None
    own_valkey.start()
    now_s = time.monotonic()
    monkeypatch.setattr("worker.embeddings.shared.time.monotonic", lambda: now_s + PAUSE_S + 1)

    cache.remember("aa" * 32, embedding())

    assert cache.recall("aa" * 32) is not None


def test_a_full_redis_is_counted_as_a_failure_and_the_image_is_embedded(
    own_valkey: ValkeyServer, make_images: MakeImages
) -> None:
    with own_valkey.connect() as operator:
        operator.config_set("maxmemory", 1)
    cache = shared(own_valkey)

    assert make_images(shared=cache).embed(picture()).batch_size == 1
    assert cache.failures == 1


def test_many_threads_may_use_the_shared_cache_at_once(valkey_of_this_run: ValkeyServer, store: redis.Redis) -> None:
    cache = shared(valkey_of_this_run)

    def ask(number: int) -> None:
        for step in range(50):
            digest = f"{(number + step) % 10:02x}" * 32
            if cache.recall(digest) is None:
                cache.remember(digest, embedding(step))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert cache.failures == 0
    assert store.hlen(KEY) == 10


def test_models_that_differ_in_weights_dtype_or_reducing_gap_share_no_embeddings(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    def identity_of(folder: Path, gap: float | None = None, dtype: str = "float32") -> str:
        model: Model = load_model(str(folder), device="cpu", dtype=dtype)
        return identity(model, str(folder), reducing_gap=gap)

    original = checkpoint("clip")
    copy, trained = (Path(shutil.copytree(original, tmp_path / name / original.name)) for name in ("copy", "trained"))
    weights = trained / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-2] ^= 1
    weights.write_bytes(data)

    known = identity_of(original)

    assert identity_of(copy) == known
    assert len({known, identity_of(trained), identity_of(original, 2.0), identity_of(original, dtype="bfloat16")}) == 4


def test_a_checkpoint_whose_files_are_gone_is_reported_in_one_sentence(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    model = load_model(str(checkpoint("clip")), device="cpu")

    with pytest.raises(ModelLoadError, match=r"No such file or directory.*NAMESHOT_SHARED_CACHE_BYTES"):
        identity(model, str(tmp_path / "gone"), reducing_gap=None)
