"""``make chaos``: thousands of jobs while workers, producers, connections and both Valkeys fail; no job may be lost.

Exits with 1 if an accepted job has no answer, or a changed or wrong one; if the backlog omitted a job; if a waiter got
``unknown`` for a job that existed, or did not get it for a destroyed one; or if a process ended without a fault.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.chaos.faults import Kind
from tests.chaos.run import Plan, Report, run
from tests.chaos.whereabouts import NOWHERE

FEW = 10
LINE_EVERY_S = 10.0


def main() -> int:
    """Run a plan and print the report; return the exit status."""
    defaults = Plan()
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--jobs", type=int, default=defaults.jobs, help="(%(default)s)")
    parser.add_argument("--faults", type=int, default=defaults.faults, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="of the schedule of faults (%(default)s)")
    parser.add_argument("--workers", type=int, default=defaults.workers, help="(%(default)s)")
    parser.add_argument("--gap", type=float, default=defaults.gap_s, help="seconds between faults (%(default)s)")
    parser.add_argument("--forward-ms", type=float, default=defaults.forward_ms, help="of a batch (%(default)s)")
    parser.add_argument(
        "--patience", type=float, default=defaults.patience_s, help="seconds without a new answer (%(default)s)"
    )
    parser.add_argument("--only", nargs="+", choices=[kind.name for kind in Kind], help="kinds of faults")
    parser.add_argument("--folder", type=Path, help="keep logs and data there, in an empty folder")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    arguments = parser.parse_args()
    plan = Plan(
        jobs=arguments.jobs,
        faults=arguments.faults,
        seed=arguments.seed,
        workers=arguments.workers,
        gap_s=arguments.gap,
        forward_ms=arguments.forward_ms,
        patience_s=arguments.patience,
        kinds=frozenset(Kind[name] for name in arguments.only) if arguments.only else defaults.kinds,
    )
    with tempfile.TemporaryDirectory(prefix="nameshot-chaos-") as temporary:
        folder = Path(arguments.folder or temporary)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            parser.error(f"{folder} is not empty; the jobs of another run would be counted too")
        # The log of the waiters and of those that send jobs again; each outage adds a line.
        logging.basicConfig(filename=folder / "waiters.log", level=logging.INFO)
        report = run(plan, folder.absolute(), Progress())
    numbers = summary(report)
    if arguments.json:
        print(json.dumps(numbers, indent=2))
    else:
        show(numbers)
    return 1 if any(report.failures.values()) else 0


def summary(report: Report) -> dict[str, Any]:
    """Return the report as a JSON object, with the ids of the first few lost, changed and wrong jobs."""
    verdict = report.verdict
    recovered = [recovery for recovery in report.recoveries if recovery.seconds is not None]
    undisturbed = [recovery for recovery in recovered if not recovery.met(report.disturbances)]
    return {
        "seed": report.plan.seed,
        "workers": report.plan.workers,
        "duration_s": round(report.duration_s, 1),
        "accepted": report.accepted,
        "answered": report.answered,
        "failures": report.failures,
        "lost_messages": dict(report.lost_messages.most_common()),
        "failed": dict(sorted(verdict.failed.items())),
        "killed_three_times_in_hand_and_poisoned": len(verdict.unlucky),
        "looks_at_the_backlog": report.looks,
        "destroyed": dict(report.destroyed),
        "waiters_told_that_a_job_is_no_more": report.told,
        "slowest_told_s": round(report.slowest_told_s, 1),
        "faults": {kind.value: report.faults[kind] for kind in Kind},
        "jobs_by_executions": dict(sorted(Counter(report.runs.values()).items())),
        "most_in_hand_of_a_killed_worker": report.most_in_hand,
        "kills_with_jobs_in_hand": len(report.recoveries),
        "kills_not_recovered": len(report.recoveries) - len(recovered),
        "kills_with_no_other_fault_meanwhile": len(undisturbed),
        "slowest_answer_with_no_other_fault_s": slowest(one.seconds for one in undisturbed),
        "slowest_recovery_s": slowest(one.elsewhere_s for one in recovered),
        "slowest_answer_s": slowest(one.seconds for one in recovered),
        "examples": {
            "lost": sorted(verdict.lost)[:FEW],
            "changed": sorted(verdict.changed)[:FEW],
            "wrong": [f"{job_id}: {how}" for job_id, how in verdict.wrong.items()][:FEW],
            "hidden": [str(moment) for moment in report.hidden][:FEW],
            "falsely unknown": [f"{job_id}: {traces}" for job_id, traces in report.falsely_unknown.items()][:FEW],
            "waiters not told": sorted(report.not_told)[:FEW],
            "waiters that failed": report.waiters_failures[:FEW],
            "processes that ended by themselves": [str(ended) for ended in report.unexpected_ends][:FEW],
        },
    }


def slowest(durations_s: Iterable[float | None]) -> float | None:
    """Return the longest of the durations, or None if there are none."""
    return max((round(duration_s or 0.0, 1) for duration_s in durations_s), default=None)


def seconds(value: float | None) -> str:
    """Return a duration as text for the table."""
    return "–" if value is None else f"{value} s"


def show(numbers: dict[str, Any]) -> None:
    """Print the numbers as one table."""
    table = Table(title=f"seed {numbers['seed']}, {numbers['workers']} workers, {numbers['duration_s']:.0f} s")
    table.add_column("counted")
    table.add_column("", justify="right")
    table.add_row("jobs accepted", f"{numbers['accepted']:,}")
    table.add_row("jobs answered", f"{numbers['answered']:,}")
    for name, count in numbers["failures"].items():
        table.add_row(name, f"{count:,}", style="bold red" if count else "bold green")
    for place, jobs in numbers["lost_messages"].items():
        table.add_row(
            f"lost jobs whose message lies in {place}" if place != NOWHERE else "lost jobs whose message is nowhere",
            f"{jobs:,}",
        )
    for code, jobs in numbers["failed"].items():
        table.add_row(f"answered with {code}", f"{jobs:,}")
    for what, count in numbers["destroyed"].items():
        table.add_row(f"{what} purged or flushed", f"{count:,}")
    unlucky = numbers["killed_three_times_in_hand_and_poisoned"]
    table.add_row("poisoned: in hand of three workers when they were killed", f"{unlucky:,}")
    table.add_row("waiters told that their job was destroyed", f"{numbers['waiters_told_that_a_job_is_no_more']:,}")
    table.add_row("the slowest of them, without outages", seconds(numbers["slowest_told_s"]))
    table.add_row("counts of the backlog", f"{numbers['looks_at_the_backlog']:,}")
    table.add_section()
    for kind, count in numbers["faults"].items():
        table.add_row(kind, f"{count:,}")
    table.add_section()
    for executions, jobs in numbers["jobs_by_executions"].items():
        table.add_row(f"jobs executed {executions} times" if executions != 1 else "jobs executed once", f"{jobs:,}")
    table.add_row("kills of a worker with jobs in hand", f"{numbers['kills_with_jobs_in_hand']:,}")
    table.add_row("most messages in hand of one", f"{numbers['most_in_hand_of_a_killed_worker']:,}")
    table.add_row("of them not recovered", f"{numbers['kills_not_recovered']:,}")
    table.add_row("slowest recovery: until run elsewhere", seconds(numbers["slowest_recovery_s"]))
    table.add_row("until answered, whatever else failed meanwhile", seconds(numbers["slowest_answer_s"]))
    table.add_row("kills with no other fault meanwhile", f"{numbers['kills_with_no_other_fault_meanwhile']:,}")
    table.add_row("until answered, of these", seconds(numbers["slowest_answer_with_no_other_fault_s"]))
    console = Console()
    console.print(table)
    for name, examples in numbers["examples"].items():
        for example in examples:
            console.print(f"{name}: {example}", markup=False, highlight=False, soft_wrap=True)


class Progress:
    """Prints a run's progress: on a terminal in one line that it overwrites, elsewhere as a line every ten seconds."""

    def __init__(self) -> None:
        self._on_terminal = sys.stderr.isatty()
        self._next_s = 0.0

    def __call__(self, progress: str) -> None:
        if self._on_terminal:
            print(f"\r{progress:<100}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() >= self._next_s:
            print(progress, file=sys.stderr, flush=True)
            self._next_s = time.monotonic() + LINE_EVERY_S


if __name__ == "__main__":
    raise SystemExit(main())
