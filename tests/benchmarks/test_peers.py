"""The comparison with peers, as far as it needs none of them."""

import io
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.peers.contenders import HttpPeer
from benchmarks.peers.environment import STAMP, environment
from benchmarks.peers.failure import PeerFailed
from benchmarks.peers.load import Clients, percentile
from benchmarks.peers.measure import Plan, measured, summary
from benchmarks.peers.memory import family, resident_bytes
from benchmarks.peers.reference import compare
from benchmarks.peers.table import table_of, with_ratios


@pytest.mark.parametrize(("percent", "value"), [(50, 2), (75, 3), (95, 4), (100, 4)])
def test_a_percentile_is_one_of_the_values_and_not_exceeded_by_that_many_percent(percent: float, value: float) -> None:
    assert percentile([3, 1, 4, 2], percent) == value


def test_a_summary_has_the_median_round_and_the_latencies_of_all() -> None:
    rounds = [(1.0, [0.1, 0.1]), (4.0, [0.2, 0.9]), (2.0, [0.1, 0.1])]

    assert summary(rounds) == {"jobs_per_s": 1.0, "p50_ms": 100, "p95_ms": 900}


def test_every_job_is_asked_once_by_as_many_clients_at_once_as_there_are() -> None:
    asked: list[int] = []
    together = threading.Barrier(4)  # broken unless four ask at once

    def ask(number: int) -> None:
        together.wait(timeout=30)
        asked.append(number)

    with Clients(4) as clients:
        elapsed_s, latencies_s = clients.run(ask, 12, lambda: None)

    assert sorted(asked) == list(range(12))
    assert len(latencies_s) == 12
    assert max(latencies_s) <= elapsed_s


def test_a_failed_answer_ends_the_run() -> None:
    with Clients(2) as clients, pytest.raises(ZeroDivisionError):
        clients.run(lambda number: print(1 / (number - 3)), 8, lambda: None)


def test_a_run_ends_when_there_is_nobody_left_to_answer() -> None:
    never = threading.Event()

    def nobody_left() -> None:
        raise PeerFailed("it ended")

    with Clients(1) as clients, pytest.raises(PeerFailed, match="it ended"):
        clients.run(lambda _number: print(never.wait()), 1, nobody_left)
    never.set()


def test_the_same_scores_within_a_thousandth_are_the_same_ranking() -> None:
    compare({"owl": 0.7005, "fox": 0.2995}, {"owl": 0.7, "fox": 0.3})


@pytest.mark.parametrize(
    "answer", [{"owl": 0.702, "fox": 0.298}, {"fox": 0.3, "owl": 0.7}, {"owl": 0.7}, {"owl": 0.7, "fix": 0.3}]
)
def test_other_scores_orders_or_labels_are_not(answer: dict[str, float]) -> None:
    with pytest.raises(PeerFailed):
        compare(answer, {"owl": 0.7, "fox": 0.3})


def test_the_table_has_our_rate_by_theirs_and_the_reason_of_a_failure() -> None:
    figures = {"p50_ms": 1, "p95_ms": 2, "memory_mb": 3, "start_s": 4.0}
    rows = with_ratios(
        [
            {"name": "ours", "labels": 4, "jobs_per_s": 12.0, **figures},
            {"name": "theirs", "labels": 4, "jobs_per_s": 8.0, **figures},
            {"name": "broken", "labels": 4, "error": "it [ended]"},
        ],
        "ours",
    )
    console = Console(width=140, record=True, file=io.StringIO())

    console.print(table_of(rows, "title"))

    assert [row.get("ratio") for row in rows] == [1.0, 1.5, None]
    lines = console.export_text().splitlines()
    assert any("theirs" in line and "1.5x" in line for line in lines)
    assert any("broken" in line and "it [ended]" in line for line in lines)


def test_a_program_s_family_is_all_it_started_even_in_sessions_of_their_own() -> None:
    grandchild = "import sys; print('ready', flush=True); sys.stdin.read()"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}], start_new_session=True)"
    with subprocess.Popen(
        [sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()

        pids = family(process.pid)

        assert process.pid in pids
        assert len(pids) == 2
        assert resident_bytes(process.pid) > 1_000_000
        process.communicate()


def test_an_environment_finds_our_packages_after_its_own_and_is_made_once(tmp_path: Path) -> None:
    (tmp_path / "peer.txt").write_text("# nothing of its own\n")

    python = environment("peer", tmp_path / "venvs", requirements=tmp_path)

    asked = "import requests, sys; print(sys.prefix); print(requests.__file__)"
    prefix, found = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True).stdout.split()
    assert Path(prefix) == tmp_path / "venvs" / "peer"
    assert not Path(found).is_relative_to(prefix)
    made = (tmp_path / "venvs" / "peer" / STAMP).stat().st_mtime_ns
    assert environment("peer", tmp_path / "venvs", requirements=tmp_path) == python
    assert (tmp_path / "venvs" / "peer" / STAMP).stat().st_mtime_ns == made


def test_what_cannot_be_installed_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "peer.txt").write_text("./no-such-package\n")

    with pytest.raises(PeerFailed, match=r"cannot be made: .*no-such-package"):
        environment("peer", tmp_path / "venvs", requirements=tmp_path)


def test_a_peer_that_does_not_start_is_a_row_for_each_label_set_that_says_why(tmp_path: Path) -> None:
    plan = Plan(tmp_path, 1, tmp_path, [["owl"], ["owl", "fox"]], [[], []], jobs=1, rounds=1, clients=1)

    rows = measured(HttpPeer("absent", "a program that is not there", command=("no_such_program",)), plan, print)

    assert [row["labels"] for row in rows] == [1, 2]
    assert all("No module named no_such_program" in row["error"] for row in rows)
