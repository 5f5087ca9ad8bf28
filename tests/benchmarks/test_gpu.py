"""The GPU benchmark says if there is no GPU; its code also runs on a CPU with a small model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.fronts import rate_of

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *arguments],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_a_gpu_it_says_so_and_measures_nothing() -> None:
    done = run()

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("benchmarks.gpu: PyTorch finds no GPU cuda:0 here, so nothing was measured;")


@pytest.mark.thorough
def test_every_measurement_runs_with_a_tiny_model_on_the_cpu(tmp_path: Path) -> None:
    quickly = ("--batches", "2", "4", "--fronts", "2", "--seconds", "0.3", "--rounds", "1")
    done = run("--device", "cpu", "--model-size", "tiny", *quickly, "--output", str(tmp_path / "gpu.json"))

    assert done.returncode == 0, done.stderr
    (model,) = json.loads((tmp_path / "gpu.json").read_text())["models"]
    assert model["best_batch"] in (2, 4)
    assert model["local_engine_images_per_s"] > 0
    assert model["engine_process_images_per_s"].keys() == {"2"}
    assert all(rate > 0 for rate in model["engine_process_images_per_s"].values())


def test_a_rate_counts_the_work_of_all_threads_after_the_warm_up() -> None:
    rate = rate_of(lambda: 7, 2, 0.2)

    assert rate > 7 * 100
