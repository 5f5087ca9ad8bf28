"""How the benchmark's table is made from the rounds: medians, ratios and layout."""

import io
import threading
import time
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from benchmarks import plot, table
from benchmarks.comparison import jobs_for, rotated
from benchmarks.labels import Labels, images_per_message
from benchmarks.limit import Way, pass_of, steady_rate
from benchmarks.report import best_peer, latencies, lone, rows
from benchmarks.stages.clock import StageClock
from benchmarks.stages.split import STAGES, by_stage


def sample(name: str, load: str, per_s: float, labels: int | None = 4, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "load": load,
        "labels": labels,
        "images_of_own_labels": None,
        "round": 0,
        "beside": None,
        "jobs_per_s": per_s,
        "cpu_ms": 150.0,
        **more,
    }


SAMPLES = [
    sample("forward", "limit", 14.0, None, cpu_ms=140.0),
    sample("loop", "limit", 12.0),
    *(
        sample("nameshot", "single", per_s, of_forward=per_s / 14, of_loop=ratio, round=number)
        for number, (per_s, ratio) in enumerate(((11.0, 0.9), (9.0, 0.95), (12.0, 0.99)))
    ),
    sample("slow", "clients", 2.0, ahead=5.5),
    sample("quick", "clients", 8.0, ahead=1.5),
]
LONE_STAGES = [{"queued": queued, "forward": 100.0} for queued in (1.0, None, 0.0)]
REPORT = {
    "machine": {"cpu": "a processor", "cores": 2},
    "model": "a model",
    "rows": rows(SAMPLES),
    "latencies": latencies({("nameshot", 0.5): [10.0, 20.0, 30.0, 40.0]}, 12.0),
    "lone": lone([110.0, 102.0, 205.0], {1: [100.0, 90.0, 200.0], 2: [150.0, 150.0, 150.0]}, LONE_STAGES),
    "contenders": {
        "nameshot": {"start_s": 9.5, "memory_mb": 1200},
        "slow": {"start_s": 9.0},
        "broken": {"error": "it [ended]"},
    },
    "stages": [
        {
            "model_name": name,
            "load": "bulk",
            "labels": 4,
            "outside": 8.0,
            "queue_share": 0.05,
            "model": model_ms,
            "client": 1.5,
        }
        | dict.fromkeys(STAGES, 0.0)
        | {"decode": 6.0, "fetch": 0.75}
        for name, model_ms in (("a model", 145.0), ("another", 4.0))
    ],
}


def test_a_row_has_the_median_of_each_figure_and_the_slowest_and_fastest_round() -> None:
    (ours,) = [row for row in rows(SAMPLES) if row["name"] == "nameshot"]

    assert ours["jobs_per_s"] == 11.0
    assert ours["of_loop"] == 0.95  # the ratio within one round, not the ratio of medians
    assert ours["spread"] == [9.0, 12.0]
    assert ours["beyond_ms"] == 10.0


def test_measurements_of_a_limit_for_the_same_peer_and_round_are_averaged() -> None:
    measured = [(0, None, 10.0), (0, None, 14.0), (1, None, 16.0), (0, "a peer", 11.0), (0, "another", 20.0)]

    (loop,) = rows([sample("loop", "limit", per_s, round=at, beside=peer) for at, peer, per_s in measured])

    assert loop["jobs_per_s"] == 14.0  # the median of 12, 16, 11 and 20
    assert loop["spread"] == [11.0, 20.0]


def test_rounds_begin_with_each_number_of_labels_in_turn() -> None:
    assert [rotated((4, 100, 1000), number) for number in range(4)] == [
        [4, 100, 1000],
        [100, 1000, 4],
        [1000, 4, 100],
        [4, 100, 1000],
    ]


def test_the_best_peer_is_the_fastest_one() -> None:
    assert {labels: row["name"] for labels, row in best_peer(rows(SAMPLES), "nameshot").items()} == {4: "quick"}


def test_latencies_are_percentiles_of_all_jobs_at_a_load() -> None:
    assert latencies({("nameshot", 0.5): [40.0, 10.0, 30.0, 20.0]}, 12.0) == [
        {"name": "nameshot", "share": 0.5, "offered_per_s": 6.0, "jobs": 4, "p50_ms": 20, "p95_ms": 40, "p99_ms": 40}
    ]


def test_a_lone_job_is_compared_with_the_faster_kind_of_direct_call() -> None:
    assert REPORT["lone"] == {
        "jobs": 3,
        "direct_ms": 100.0,
        "job_ms": 110.0,
        "longer_ms": 10.0,
        "stages_ms": {"queued": 0.0, "forward": 100.0, "client and answer": 9.0},
    }


def test_the_table_has_the_limits_first_and_says_why_a_peer_failed() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    for title, columns, cells in table.tables(REPORT):
        console.print(table.for_terminal(title, columns, cells))
    shown = console.export_text().splitlines()

    order = [next(n for n, line in enumerate(shown) if what in line) for what in ("forward pass  ", "bare loop  ")]
    assert order == sorted(order)
    assert any("nameshot, single" in line and "11.00" in line and "95%" in line for line in shown)
    assert any("slow, waiting" in line and "5.50x" in line for line in shown)
    assert any("broken" in line and "it [ended]" in line for line in shown)
    assert any("nameshot" in line and "20/40/40" in line and "1200" in line for line in shown)
    assert any("slow" in line and "overload" in line for line in shown)


def test_the_summary_says_where_an_image_s_time_goes() -> None:
    assert table.in_words(REPORT, "nameshot").splitlines()[1:] == [
        "the lone job's stages in ms: queued 0.0, forward 100.0, client and answer 9.0",
        "4 labels: the best peer is quick; nameshot is 1.50x",
        "bulk, 4 labels, CPU ms per image: the model 145.0 (the bare forward pass 140.0); decoding, which the bare "
        "loop does too, 6.0; fetching 0.8; the queue 0.4; the client, which shares the cores, 1.5",
    ]


def test_the_table_can_be_written_as_markdown() -> None:
    assert table.markdown(["", "what", "jobs/s"], [["4", "bare loop", "12.00"]]).splitlines() == [
        "|  | what | jobs/s |",
        "| --- | --- | ---: |",
        "| 4 | bare loop | 12.00 |",
    ]


def test_the_plots_are_svg_and_contain_every_row() -> None:
    bars = plot.throughput(table.in_order(rows(SAMPLES)))
    dots = plot.latency(latencies({("nameshot", 0.5): [10.0], ("quick", 0.5): [20.0]}, 12.0))

    assert len(ElementTree.fromstring(bars).findall("{*}rect")) == 1 + 5
    assert len(ElementTree.fromstring(dots).findall("{*}circle")) == 2 * 3


def test_shared_labels_never_change_and_different_ones_are_always_new() -> None:
    same, different = Labels(3), Labels(3, shared_by=1)

    assert same.next_set() == same.next_set() == ["candidate label 0", "candidate label 1", "candidate label 2"]
    assert len({label for _ in range(10) for label in different.next_set()}) == 30


@pytest.mark.parametrize(("labels", "images"), [(4, 32), (625, 32), (1000, 20)])
def test_a_bulk_message_holds_as_many_images_as_its_scores_allow(labels: int, images: int) -> None:
    assert images_per_message(labels) == images


@pytest.mark.parametrize(
    ("labels", "images_of_a_pass", "batch"),
    [
        (Labels(1000), 8, 8),
        (Labels(4, 1), 8, 8),
        (Labels(1000, 1), 1, 1),
        (Labels(4, 32), 32, 8),
        (Labels(4, 20), 20, 5),
    ],
)
def test_the_passes_of_a_loop_have_equal_work(labels: Labels, images_of_a_pass: int, batch: int) -> None:
    assert pass_of(Way(batch=8, parallel=2), labels) == (images_of_a_pass, batch)


@pytest.mark.parametrize(("seconds", "per_s", "jobs"), [(8, 12, 96), (8, 0.1, 32), (8, 13, 96)])
def test_a_round_has_whole_units_of_jobs_and_at_least_one(seconds: float, per_s: float, jobs: int) -> None:
    assert jobs_for(seconds, per_s, 32) == jobs


def test_a_steady_rate_is_the_sum_over_all_threads() -> None:
    at_work = {"one": 0, "other": 0}
    names = iter(at_work)

    def make_pass() -> Callable[[], int]:
        name = next(names)

        def one_pass() -> int:
            at_work[name] += 1
            pause.wait(0.02)
            return 3

        return one_pass

    pause = threading.Event()

    rate = steady_rate(make_pass, 2, 0.2)

    assert min(at_work.values()) >= 2
    assert 0 < rate.per_s <= 2 * 3 / 0.02


def test_the_time_of_an_inner_stage_does_not_count_for_the_outer_one() -> None:
    clock = StageClock()

    def spin(seconds: float) -> None:
        until_s = time.thread_time() + seconds
        while time.thread_time() < until_s:
            pass

    inner = clock.timed("inner", lambda: spin(0.1))

    def outer() -> None:
        inner()
        spin(0.02)

    clock.timed("outer", outer)()

    used = clock.read()
    assert used["inner"] >= 0.1
    assert 0.02 <= used["outer"] < 0.1


def test_the_time_outside_all_stages_counts_for_celery() -> None:
    before = {"process": 1.0, "native": 0.0, "decoders": 0.0, "valkey": 0.0, "client": 7.0, "fetch": 0.5}
    after = {"process": 3.0, "native": 0.4, "decoders": 0.1, "valkey": 0.02, "client": 7.2, "fetch": 0.7}
    after |= {"answer": 0.1, "model": 1.0}

    row = by_stage(before, after, jobs=10)

    assert row["fetch"] == pytest.approx(20)
    assert row["model"] == pytest.approx(140)
    assert row["decode"] == pytest.approx(10)
    assert row["celery"] == pytest.approx(200 - 40 - 20 - 10 - 100)
    assert row["outside"] == pytest.approx(20 + 10 + 10 + 2 + 30)
    assert row["client"] == pytest.approx(20)
    assert row["queue_share"] == pytest.approx((30 + 10 + 2) / 72, abs=1e-3)
