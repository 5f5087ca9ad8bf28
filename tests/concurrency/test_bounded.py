"""What is kept between jobs is bounded in bytes, and what was used least recently goes first."""

import sys

import numpy as np
from numpy.typing import NDArray

from worker.concurrency.lru import Bounded

Vector = NDArray[np.float32]


def test_the_cache_forgets_the_least_recently_used_when_full() -> None:
    cache: Bounded[Vector] = Bounded(max_bytes=3 * (32 + sys.getsizeof("a")))
    for name in ("a", "b", "c"):
        cache.remember(name, np.zeros(8, np.float32))
    cache.recall("a")

    cache.remember("d", np.zeros(8, np.float32))

    assert list(cache) == ["c", "a", "d"]


def test_the_cache_is_bounded_by_the_texts_of_strangers_too() -> None:
    cache: Bounded[Vector] = Bounded(max_bytes=100_000)
    for number in range(100):
        cache.remember((("owl",), tuple(f"{number} {'long ' * 200}{{}}" for _ in range(10))), np.zeros(8, np.float32))

    assert 1 <= len(cache) < 10  # each of some 10,000 bytes, and of 32 without its texts
