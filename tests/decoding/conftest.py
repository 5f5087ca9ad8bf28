from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from producer.errors import JobFailed
from tests.images.conftest import MAX_PIXELS, prepared
from worker.concurrency.budget import Budget
from worker.concurrency.cancel_scope import CancelScope
from worker.decoding.decoder import DecoderOptions
from worker.decoding.pool import DecoderPool
from worker.engine.capacity import DECODING_BYTES_PER_PIXEL

__all__ = ["MAX_BYTES", "MAX_PIXELS", "code_of", "make_pool", "prepared", "scope"]

MAX_BYTES = 20_000_000
TIMEOUT_S = 60.0

MakePool = Callable[..., DecoderPool]


@pytest.fixture
def make_pool() -> Iterator[MakePool]:
    """Make decoder pools, which are closed after the test."""
    pools: list[DecoderPool] = []

    def make(options: DecoderOptions | None = None, *, processes: int = 1, start: bool = True) -> DecoderPool:
        budget = Budget(DECODING_BYTES_PER_PIXEL * MAX_PIXELS, "no memory")
        pools.append(
            DecoderPool(options or DecoderOptions(MAX_PIXELS, MAX_BYTES, None), processes=processes, budget=budget)
        )
        if start:
            pools[-1].start()
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def scope(timeout_s: float = TIMEOUT_S) -> CancelScope:
    return CancelScope(time.monotonic() + timeout_s)


def code_of(pool: DecoderPool, data: bytes, within: CancelScope | None = None) -> str:
    """Return the code with which decoding the bytes fails, or ``ok`` if it succeeds."""
    try:
        pool.decode(data, within or scope())
    except JobFailed as failure:
        return failure.code
    return "ok"
