"""`benchmarks.first_gpu` also runs on a CPU from start to end, and keeps its results if a step is cut off."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.first_gpu.report import is_right
from benchmarks.first_gpu.runner import run_step
from benchmarks.first_gpu.steps import STEPS, TOTAL_S

ROOT = Path(__file__).parents[2]
#: Enough for two cores that other programs use as well.
TIMEOUT_S = 1_500


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.first_gpu", *arguments],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.thorough
@pytest.mark.timeout(TIMEOUT_S)
def test_a_quick_run_on_the_cpu_does_every_step_and_all_checks_hold(tmp_path: Path) -> None:
    done = run("--quick", "--output", str(tmp_path / "found.json"))

    report = json.loads((tmp_path / "found.json").read_text())
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(report["steps"]) == [step.name for step in STEPS]
    assert all(step["ended"] == "done" and step["lines"] for step in report["steps"].values())
    assert "checks held on cpu" in done.stdout


def test_without_a_gpu_a_full_run_says_so_and_measures_nothing() -> None:
    done = run()

    assert (done.returncode, done.stdout) == (2, "")
    assert "PyTorch finds no GPU cuda:0 here" in done.stderr


def test_a_step_that_does_not_end_is_killed_with_its_children_and_its_results_are_kept(tmp_path: Path) -> None:
    program = """
import subprocess, sys, time
from pathlib import Path
from benchmarks.first_gpu.notes import Notes
notes = Notes(Path(sys.argv[1]))
notes.figure("so far", 7)
child = subprocess.Popen(["sleep", "600"])
notes.figure("child", child.pid)
time.sleep(600)
"""

    result = run_step([sys.executable, "-c", program], tmp_path / "step", 10)

    assert result["ended"] == "cut off after 10 s"
    assert result["figures"]["so far"] == 7
    state = Path(f"/proc/{result['figures']['child']}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_failed_step_reports_its_status_and_output(tmp_path: Path) -> None:
    result = run_step([sys.executable, "-c", "raise SystemExit('no such device')"], tmp_path / "step", 60)

    assert result["ended"] == "failed with status 1"
    assert "no such device" in result["output"]


def test_a_run_is_right_if_every_step_ended_and_every_check_held() -> None:
    held = {"ended": "done", "checks": [{"what": "", "ok": True, "found": ""}]}

    assert is_right({"steps": {"facts": held}})
    assert not is_right({"steps": {"facts": held, "parity": {**held, "ended": "cut off after 60 s"}}})
    assert not is_right({"steps": {"facts": {**held, "checks": [{"what": "", "ok": False, "found": ""}]}}})


def test_the_time_limits_of_the_main_steps_fit_together_into_a_run() -> None:
    assert all(step.limit_s < TOTAL_S / 3 for step in STEPS)
    assert sum(step.limit_s for step in STEPS[:5]) < TOTAL_S
