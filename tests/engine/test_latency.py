"""The line latency(n) = a + b·n is learned from batches as they come, whatever else the machine does."""

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


def test_before_the_first_batch_nothing_is_claimed() -> None:
    assert LatencyLine().predict_s(8) == 0


@given(COSTS_S, st.floats(0, 1), SIZES, SIZES.filter(lambda n: n > 1))
def test_two_sizes_in_turn_give_the_line(fixed_s: float, item_share: float, size: int, apart: int) -> None:
    item_s, larger = fixed_s * item_share, size * apart

    line = learned([(n, fixed_s + item_s * n) for _ in range(50) for n in (size, larger)])

    assert line.predict_s(size) == pytest.approx(fixed_s + item_s * size, rel=0.05)
    assert line.predict_s(larger) == pytest.approx(fixed_s + item_s * larger, rel=0.05)


@given(SIZES, COSTS_S)
def test_one_size_alone_is_all_fixed_cost_so_that_a_larger_one_is_worth_trying(size: int, run_s: float) -> None:
    line = learned([(size, run_s)] * 20)

    assert line.predict_s(size) == pytest.approx(run_s)
    assert line.predict_s(2 * size) == pytest.approx(run_s)


@given(st.lists(st.tuples(SIZES, st.floats(0, 1e4)), min_size=1, max_size=60))
def test_whatever_the_clock_said_no_batch_is_free_or_cheaper_for_being_larger(batches: list[tuple[int, float]]) -> None:
    line = learned(batches)

    assert line.fixed_s >= 0
    assert line.item_s >= 0
    assert 0 < line.predict_s(1) <= line.predict_s(256) < float("inf")


@given(st.integers(1, 64), st.floats(2, 1e4))
def test_one_outlier_counts_for_little(size: int, times: float) -> None:
    batches = [(n, 0.01 + 0.002 * n) for _ in range(20) for n in (1, 8, 32)]
    before = learned(batches).predict_s(size)

    after = learned([*batches, (size, times * (0.01 + 0.002 * size))]).predict_s(size)

    assert before <= after <= 1.2 * before


def test_a_first_batch_that_took_ten_times_as_long_is_soon_forgotten() -> None:
    line = learned([(1, 0.5)] + [(1, 0.05)] * 20)

    assert line.predict_s(1) == pytest.approx(0.05, rel=0.2)


@pytest.mark.parametrize("times", [0.5, 2, 3])
def test_a_device_that_becomes_slower_or_faster_is_followed(times: float) -> None:
    cycle = [(n, 0.01 + 0.002 * n) for n in (1, 4, 16, 32)]

    line = learned(cycle * 25 + [(size, times * run_s) for size, run_s in cycle * 25])

    for size, run_s in cycle:
        assert line.predict_s(size) == pytest.approx(times * run_s, rel=0.1)


def test_a_quiet_hour_of_single_images_does_not_wipe_out_what_large_batches_cost() -> None:
    line = learned([(n, 0.01 + 0.002 * n) for _ in range(20) for n in (1, 8, 32)] + [(1, 0.012)] * 10_000)

    assert line.predict_s(32) == pytest.approx(0.074, rel=0.1)
