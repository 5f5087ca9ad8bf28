"""``make bench``: the system beside the model's own forward pass, round by round, in one run.

Writes ``benchmarks/results/single_jobs.json`` and prints the same as a table.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.limit import BareModel
from benchmarks.machine import cpu_name
from benchmarks.system import System, running_system
from tests.model.checkpoints import make_checkpoint

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "single_jobs.json"
SCRATCH = HERE / ".scratch"
BATCH_SIZES = (4, 8, 16, 32)
#: One forward pass of 16 images takes a second on two cores; eight of them even out the scheduler's noise.
LIMIT_DURATION_S = 8.0
#: What the worker chooses for itself on a CPU, where it runs a batch on each core.
PARALLEL_BATCH = 8


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--family", default="clip-vit-b32", help="a random checkpoint's geometry (%(default)s)")
    parser.add_argument("--jobs", type=int, default=200, help="jobs a round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; medians are reported (%(default)s)")
    parser.add_argument("--labels", type=int, default=4, help="candidate labels a job (%(default)s)")
    arguments = parser.parse_args()
    folder = SCRATCH / arguments.family
    if not (folder / "config.json").exists():
        make_checkpoint(arguments.family, folder)
    bare = BareModel(folder)
    best_batch, _ = bare.best(BATCH_SIZES, LIMIT_DURATION_S / 2)
    labels = [f"candidate label {number}" for number in range(arguments.labels)]
    with running_system(folder) as system:
        system.single_jobs_per_s(2 * best_batch, labels)  # connections, caches
        rounds = [measured(bare, system, best_batch, arguments.jobs, labels) for _ in range(arguments.rounds)]
    report = {
        "machine": {"cpu": cpu_name(), "threads": torch.get_num_threads(), "torch": torch.__version__},
        "model": arguments.family,
        "labels": arguments.labels,
        "jobs_a_round": arguments.jobs,
        "best_batch": best_batch,
        "rounds": rounds,
        "summary": summary(rounds),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")
    show(report)


def measured(bare: BareModel, system: System, best_batch: int, jobs: int, labels: list[str]) -> dict[str, float]:
    """One round: the limit, the system, the limit, the system, since machines drift."""
    forward = bare.images_per_s(best_batch, LIMIT_DURATION_S)
    single, single_batch = system.single_jobs_per_s(jobs, labels)
    parallel = bare.images_per_s(PARALLEL_BATCH, LIMIT_DURATION_S, bare.parallel_batches)
    bulk, bulk_batch = system.bulk_images_per_s(jobs, labels)
    return {
        "forward_images_per_s": round(forward, 2),
        "parallel_images_per_s": round(parallel, 2),
        "single_jobs_per_s": round(single, 2),
        "single_mean_batch": round(single_batch, 1),
        "bulk_images_per_s": round(bulk, 2),
        "bulk_mean_batch": round(bulk_batch, 1),
    }


def summary(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Medians of the system against the *fastest* forward passes seen in the run.

    Anything else that runs on the machine slows the bare loop too, and would flatter the ratios. ``forward`` is the
    model as anybody calls it, one batch at a time on all cores; ``parallel`` is a batch on each core, as the worker
    does it, and the stricter limit.
    """
    forward = max(one["forward_images_per_s"] for one in rounds)
    parallel = max(one["parallel_images_per_s"] for one in rounds)
    single = statistics.median(one["single_jobs_per_s"] for one in rounds)
    bulk = statistics.median(one["bulk_images_per_s"] for one in rounds)
    return {
        "forward_images_per_s": forward,
        "parallel_images_per_s": parallel,
        "single_jobs_per_s": single,
        "single_ratio": round(single / forward, 3),
        "single_parallel_ratio": round(single / parallel, 3),
        "bulk_images_per_s": bulk,
        "bulk_ratio": round(bulk / forward, 3),
        "bulk_parallel_ratio": round(bulk / parallel, 3),
    }


def show(report: dict[str, Any]) -> None:
    """Print the rounds and their medians."""
    table = Table(title=f"{report['model']}, {report['labels']} labels, {report['machine']['cpu']}")
    for name in ("round", *report["rounds"][0]):
        table.add_column(name.replace("_", " "), justify="right")
    for number, one in enumerate(report["rounds"], 1):
        table.add_row(str(number), *(str(value) for value in one.values()))
    console = Console(width=120)
    console.print(table)
    whole = report["summary"]
    console.print(
        f"of the fastest bare forward pass ({whole['forward_images_per_s']} images/s): "
        f"single jobs {whole['single_ratio']:.0%}, bulk {whole['bulk_ratio']:.0%}\n"
        f"of the fastest with a batch on each core ({whole['parallel_images_per_s']} images/s): "
        f"single jobs {whole['single_parallel_ratio']:.0%}, bulk {whole['bulk_parallel_ratio']:.0%}"
    )


if __name__ == "__main__":
    main()
