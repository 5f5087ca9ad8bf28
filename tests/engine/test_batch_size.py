"""How many images form a batch with and without a latency target."""

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.contract.names import Queue
from tests.chaos.null_model import NullModel
from worker.concurrency.cancel_scope import CancelScope
from worker.engine.batch_queue import BatchQueue
from worker.engine.batch_size import BatchSize
from worker.engine.batcher import Batcher
from worker.engine.local import LocalEngine
from worker.model.interface import Prepared

TIMEOUT_S = 10


def taught(target_s: float | None, fixed_s: float = 0.010, item_s: float = 0.002) -> BatchSize:
    """Return a `BatchSize` that has learned from batches of 1 to 32 that take exactly a + b·n."""
    size = BatchSize(target_s, promised=("high",))
    for _ in range(50):
        for n in (1, 2, 4, 8, 16, 32):
            size.learn(n, fixed_s + item_s * n)
    return size


def test_without_a_target_a_batch_may_have_the_largest_size_that_fits() -> None:
    assert taught(None).choose(32, promised=1, waited_s=0.5) == 32


def test_with_a_target_two_batches_take_at_most_nine_tenths_of_it() -> None:
    size = taught(0.120)

    assert size.choose(32) == pytest.approx(22, abs=1)  # 10 + 2 × 22 = 54 ms; two such batches take 108 ms
    assert size.choose(8) == 8


@given(
    st.floats(1e-3, 10), st.floats(1e-4, 1), st.floats(0, 0.5), st.integers(1, 64), st.integers(0, 99), st.floats(0, 9)
)
def test_a_batch_has_at_least_one_image_and_never_more_than_fit(
    target_s: float, fixed_s: float, item_s: float, max_batch: int, promised: int, waited_s: float
) -> None:
    size = BatchSize(target_s, promised=("high",))
    for n in (1, 3):
        size.learn(n, fixed_s + item_s * n)

        assert 1 <= size.choose(max_batch, promised, waited_s) <= max_batch


def test_a_new_size_is_at_most_twice_the_largest_that_has_run() -> None:
    size, chosen = BatchSize(0.120), list[int]()
    for _ in range(8):
        chosen.append(size.choose(32))
        size.learn(chosen[-1], 0.010 + 0.002 * chosen[-1])

    assert chosen[:5] == [1, 2, 4, 8, 16]
    assert chosen[-1] == pytest.approx(22, abs=3)


def test_a_device_that_becomes_slower_gets_smaller_batches() -> None:
    size = taught(0.120)
    for _ in range(60):
        n = size.choose(32)
        size.learn(n, 0.020 + 0.004 * n)

    assert size.choose(32) == pytest.approx(8, abs=1)  # 20 + 4 × 8 = 52 ms


def test_if_late_images_exceed_the_chosen_size_as_many_as_fit_form_a_batch() -> None:
    size = taught(0.120)

    assert size.choose(32, promised=30, waited_s=0.02) == pytest.approx(22, abs=1)
    assert size.choose(32, promised=30, waited_s=0.10) == 30
    assert size.choose(32, promised=99, waited_s=0.10) == 32


def test_a_late_image_that_is_in_the_batch_anyway_does_not_enlarge_it() -> None:
    assert taught(0.120).choose(32, promised=1, waited_s=0.10) == pytest.approx(22, abs=1)


def test_a_target_that_even_single_images_miss_is_ignored_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    size = taught(0.020)
    with caplog.at_level(logging.WARNING):
        assert [size.choose(32), size.choose(32)] == [32, 32]

    (said,) = caplog.messages
    assert "target of 20 ms" in said
    assert "NAMESHOT_LATENCY_TARGET_MS above 27" in said


def test_the_batcher_uses_the_chosen_sizes_and_reports_how_long_batches_took() -> None:
    taken: list[int] = []

    def run(items: Sequence[int]) -> Sequence[int]:
        taken.append(len(items))
        return items

    batcher, size = Batcher(), BatchSize(60, promised=("high",))
    queue: BatchQueue[int, int] = batcher.add_queue("images", run, 32, {"high": 16, "bulk": 1}, size)
    futures = [queue.submit(n, rank="bulk") for n in range(40)]
    batcher.start()
    for future in futures:
        future.result(TIMEOUT_S)
    batcher.close(TIMEOUT_S)

    assert taken == [1, 2, 4, 8, 16, 9]
    assert size.line.predict_s(1) > 0


def test_a_lone_batch_that_used_all_cores_does_not_count_for_the_line() -> None:
    batcher, size = Batcher(threads=2), BatchSize(60)
    queue: BatchQueue[int, int] = batcher.add_queue("images", lambda items: items, 8, size=size)
    batcher.start()
    queue.submit(1).result(TIMEOUT_S)
    batcher.close(TIMEOUT_S)

    assert size.line.predict_s(1) == 0


@pytest.mark.parametrize(("queue", "target_s"), [("bulk", 0.4), ("bulk", None)])
def test_an_engine_with_a_target_divides_a_backlog_into_batches_that_keep_it(
    queue: Queue, target_s: float | None
) -> None:
    image = Prepared({"pixels": np.zeros((8, 8, 3), dtype=np.uint8)}, key=None)
    engine = LocalEngine(NullModel(image_ms=20), max_batch=32, latency_target_s=target_s, on_device_lost=lambda: None)
    scope = CancelScope(time.monotonic() + 60)
    with ThreadPoolExecutor(40) as jobs:
        rides = list(jobs.map(lambda _: engine.embed_image(image, queue, scope), range(40)))
    engine.close()

    largest = max(ride.batch_size for ride in rides)
    assert largest > 18 if target_s is None else largest <= 9  # two batches of 9 × 20 ms take nine tenths of 400 ms
    fixed_s, item_s = engine.batch_cost_s
    assert fixed_s + item_s > 0
    assert engine.batch_limit == 32 if target_s is None else 1 < engine.batch_limit <= 9
