"""Caches that live longer than a job are bounded in bytes and evict the least recently used entry first."""

import sys

import numpy as np
from numpy.typing import NDArray

from worker.concurrency.lru import Bounded

Vector = NDArray[np.float32]


def test_a_full_cache_evicts_the_least_recently_used_entry() -> None:
    cache: Bounded[Vector] = Bounded(max_bytes=3 * (32 + sys.getsizeof("a")))
    for name in ("a", "b", "c"):
        cache.remember(name, np.zeros(8, np.float32))
    cache.recall("a")

    cache.remember("d", np.zeros(8, np.float32))

    assert list(cache) == ["c", "a", "d"]


def test_the_texts_in_the_keys_count_for_the_cache_s_size() -> None:
    cache: Bounded[Vector] = Bounded(max_bytes=100_000)
    for number in range(100):
        cache.remember((("owl",), tuple(f"{number} {'long ' * 200}{{}}" for _ in range(10))), np.zeros(8, np.float32))

    assert 1 <= len(cache) < 10  # an entry has some 10,000 bytes, but 32 without its texts
