"""A picture that one worker has embedded is run by no other, and a Redis that fails or lies harms no image."""

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
    """The server as an operator sees it, with nothing shared yet."""
    with valkey_of_this_run.connect(1) as store:
        store.delete(KEY, f"{KEY}:used")
        yield store


def shared(valkey: ValkeyServer, max_bytes: int = MAX_BYTES) -> SharedEmbeddings:
    """What a worker in its role has."""
    return SharedEmbeddings(endpoint(valkey.url(1, "worker"), "NAMESHOT_SHARED_CACHE_URL"), KEY, max_bytes=max_bytes)


def embedding(seed: int = 0, shape: tuple[int, ...] = (512,)) -> Embedding:
    vector = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return Embedding(vector / np.linalg.norm(vector, axis=-1, keepdims=True), 640, 480, "JPEG")


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("family", ["clip", "blip-2"])
def test_what_one_worker_has_embedded_no_other_decodes_or_runs(
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
def test_it_is_asked_once_for_what_this_worker_then_keeps(
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
def test_the_servers_memory_stays_within_its_bound_and_the_least_recently_used_goes_first(
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


def test_what_nobody_asks_for_is_forgotten_in_time(valkey_of_this_run: ValkeyServer, store: redis.Redis) -> None:
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
def test_what_nobody_wrote_is_no_embedding_and_is_written_over(
    value: bytes, valkey_of_this_run: ValkeyServer, store: redis.Redis
) -> None:
    cache, digest = shared(valkey_of_this_run), "cc" * 32
    cache.remember("aa" * 32, embedding(3))  # so that it knows the model's vectors
    store.hset(KEY, bytes.fromhex(digest), value)

    assert cache.recall(digest) is None
    cache.remember(digest, embedding())
    assert cache.recall(digest) is not None


def test_keys_of_another_kind_are_a_failure_and_nothing_else(
    valkey_of_this_run: ValkeyServer, store: redis.Redis
) -> None:
    store.set(KEY, "text")
    cache = shared(valkey_of_this_run)

    assert cache.recall("aa" * 32) is None
    assert cache.failures == 1


@pytest.fixture
def a_long_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than a busy machine takes for a few images."""
    monkeypatch.setattr("worker.embeddings.shared.PAUSE_S", 600.0)


@pytest.mark.usefixtures("a_long_pause")
def test_while_redis_is_away_images_are_embedded_and_it_is_left_alone(
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
def test_a_redis_that_does_not_answer_delays_a_pause_s_images_by_little(
    own_valkey: ValkeyServer, make_images: MakeImages
) -> None:
    cache = shared(own_valkey)
    images = make_images(shared=cache)
    images.embed(picture(1))
    own_valkey.freeze()

    for red in range(2, 12):
        assert images.embed(picture(red)).batch_size == 1

    assert cache.failures == 1  # each costs TIMEOUT_S, or twice that on a connection that was open


def test_once_it_answers_again_it_is_used_again(own_valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = shared(own_valkey)
    own_valkey.stop()
    assert cache.recall("aa" * 32) is None
    own_valkey.start()
    now_s = time.monotonic()
    monkeypatch.setattr("worker.embeddings.shared.time.monotonic", lambda: now_s + PAUSE_S + 1)

    cache.remember("aa" * 32, embedding())

    assert cache.recall("aa" * 32) is not None


def test_a_full_redis_that_evicts_nothing_is_a_failure_and_nothing_else(
    own_valkey: ValkeyServer, make_images: MakeImages
) -> None:
    with own_valkey.connect() as operator:
        operator.config_set("maxmemory", 1)
    cache = shared(own_valkey)

    assert make_images(shared=cache).embed(picture()).batch_size == 1
    assert cache.failures == 1


def test_many_threads_may_ask_at_once(valkey_of_this_run: ValkeyServer, store: redis.Redis) -> None:
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


def test_models_that_would_answer_differently_share_nothing(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
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
