"""``python -m benchmarks.first_gpu``: a first test of a GPU, in six minutes; ``--quick`` tries the program anywhere.

The program needs no network, no Hub and no Redis server, because it creates its checkpoints and starts Valkey itself.
It writes the results after every step, so that a run which is cut off keeps them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.first_gpu.given import Given
from benchmarks.first_gpu.report import is_right, show
from benchmarks.first_gpu.runner import run_step
from benchmarks.first_gpu.steps import QUICK_LIMIT_S, QUICK_TOTAL_S, STEPS, TOTAL_S, Step
from benchmarks.gpu import gpu_name
from benchmarks.scratch import FOLDER

RESULTS = Path(__file__).parents[1] / "results" / "first_gpu.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the steps; return 0 if every check holds, 1 if a check or a step fails, 2 if there is no such device."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_gpu", description=__doc__)
    parser.add_argument("--device", help="as NAMESHOT_DEVICE (cuda:0; with --quick, the CPU if there is no GPU)")
    parser.add_argument("--quick", action="store_true", help="small models and short measurements")
    parser.add_argument("--only", nargs="+", choices=[step.name for step in STEPS], metavar="STEP", help="only these")
    total = f"time limit of all steps in seconds ({TOTAL_S:.0f}; with --quick {QUICK_TOTAL_S:.0f})"
    parser.add_argument("--total-s", type=float, help=total)
    parser.add_argument("--output", type=Path, help="file to write (results/first_gpu.json if not quick, on a GPU)")
    chosen = parser.parse_args(arguments)
    device = chosen.device or ("cpu" if chosen.quick and gpu_name("cuda:0") is None else "cuda:0")
    if device != "cpu" and gpu_name(device) is None:
        print(
            f"benchmarks.first_gpu: PyTorch finds no GPU {device} here, so nothing was measured; --quick tries the "
            "program itself on the CPU.",
            file=sys.stderr,
        )
        return 2
    FOLDER.mkdir(exist_ok=True)
    given = Given(device=device, quick=chosen.quick, folder=str(FOLDER))
    steps = [step for step in STEPS if not chosen.only or step.name in chosen.only]
    output = chosen.output or (RESULTS if given.on_gpu and not given.quick else None)
    total_s = chosen.total_s or (QUICK_TOTAL_S if given.quick else TOTAL_S)
    report = run_all(given, steps, total_s, output)
    show(report)
    return 0 if is_right(report) else 1


def run_all(given: Given, steps: Sequence[Step], total_s: float, output: Path | None) -> dict[str, Any]:
    """Run all steps for which there is time, write the report after each, and return it."""
    report: dict[str, Any] = {"device": given.device, "quick": given.quick, "steps": {}}
    deadline_s = time.monotonic() + total_s
    with tempfile.TemporaryDirectory() as folder:
        making = [subprocess.Popen(command("checkpoints", given, family)) for family in given.models]
        try:
            for step in steps:
                limit_s = min(QUICK_LIMIT_S if given.quick else step.limit_s, deadline_s - time.monotonic())
                print(f"{step.name}: {step.about} …", file=sys.stderr, flush=True)
                if limit_s > 0:
                    result = run_step(command("step", step.name, given), Path(folder) / step.name, limit_s)
                else:
                    result = {"ended": "not begun, because no time was left", "seconds": 0.0}
                report["steps"][step.name] = result
                if output is not None:
                    output.parent.mkdir(parents=True, exist_ok=True)
                    output.write_text(json.dumps(report, indent=2) + "\n")
        finally:
            for process in making:
                process.kill()
                process.wait()
    return report


def command(module: str, *arguments: Given | str) -> list[str]:
    """Return the command that runs a module of this package."""
    texts = [each.to_json() if isinstance(each, Given) else each for each in arguments]
    return [sys.executable, "-m", f"benchmarks.first_gpu.{module}", *texts]


if __name__ == "__main__":
    raise SystemExit(main())
