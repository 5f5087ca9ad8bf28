"""`LatencyLine` learns latency(n) = a + b·n from the batches that run, despite disturbances of the machine."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.latency import LatencyLine

COSTS_S = st.floats(1e-4, 10)
SIZES = st.integers(1, 256)


def learned(batches: Iterable[tuple[int, float]]) -> LatencyLine:
    line = LatencyLine()
    for size, run_s in batches:
        line.learn(size, run_s)
    return line


def test_before_the_first_batch_the_prediction_is_zero() -> None:
    assert LatencyLine().predict_s(8) == 0


@given(COSTS_S, st.floats(0, 1), SIZES, SIZES.filter(lambda n: n > 1))
def test_batches_of_two_sizes_in_turn_determine_the_line(
    fixed_s: float, item_share: float, size: int, apart: int
) -> None:
    item_s, larger = fixed_s * item_share, size * apart

    line = learned([(n, fixed_s + item_s * n) for _ in range(50) for n in (size, larger)])

    assert line.predict_s(size) == pytest.approx(fixed_s + item_s * size, rel=0.05)
    assert line.predict_s(larger) == pytest.approx(fixed_s + item_s * larger, rel=0.05)


@given(SIZES, COSTS_S)
def test_after_batches_of_one_size_all_cost_counts_as_fixed_so_that_larger_sizes_are_tried(
    size: int, run_s: float
) -> None:
    line = learned([(size, run_s)] * 20)

    assert line.predict_s(size) == pytest.approx(run_s)
    assert line.predict_s(2 * size) == pytest.approx(run_s)


@given(st.lists(st.tuples(SIZES, st.floats(0, 1e4)), min_size=1, max_size=60))
def test_whatever_durations_were_measured_no_batch_is_predicted_free_or_cheaper_than_a_smaller_one(
    batches: list[tuple[int, float]],
) -> None:
    line = learned(batches)

    assert line.fixed_s >= 0
    assert line.item_s >= 0
    assert 0 < line.predict_s(1) <= line.predict_s(256) < float("inf")


@given(st.integers(1, 64), st.floats(2, 1e4))
def test_one_outlier_changes_the_prediction_little(size: int, times: float) -> None:
    batches = [(n, 0.01 + 0.002 * n) for _ in range(20) for n in (1, 8, 32)]
    before = learned(batches).predict_s(size)

    after = learned([*batches, (size, times * (0.01 + 0.002 * size))]).predict_s(size)

    assert before <= after <= 1.2 * before


def test_a_first_batch_that_took_ten_times_as_long_is_soon_forgotten() -> None:
    line = learned([(1, 0.5)] + [(1, 0.05)] * 20)

    assert line.predict_s(1) == pytest.approx(0.05, rel=0.2)


@pytest.mark.parametrize("times", [0.5, 2, 3])
def test_the_line_follows_a_device_that_becomes_slower_or_faster(times: float) -> None:
    cycle = [(n, 0.01 + 0.002 * n) for n in (1, 4, 16, 32)]

    line = learned(cycle * 25 + [(size, times * run_s) for size, run_s in cycle * 25])

    for size, run_s in cycle:
        assert line.predict_s(size) == pytest.approx(times * run_s, rel=0.1)


def test_after_thousands_of_single_images_the_cost_of_large_batches_is_still_known() -> None:
    line = learned([(n, 0.01 + 0.002 * n) for _ in range(20) for n in (1, 8, 32)] + [(1, 0.012)] * 10_000)

    assert line.predict_s(32) == pytest.approx(0.074, rel=0.1)
