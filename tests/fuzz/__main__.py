"""``make fuzz``: feeds generated inputs to the parts that parse data from outside.

Exits with 1 if it found a failing input; it writes each such input to a file that ``--replay`` runs again.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.fuzz.runs import TARGETS, fuzz, read_finding, replay


def main() -> int:
    """Fuzz the chosen targets, or replay a finding; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(TARGETS)} (default: all)")
    parser.add_argument("--seconds", type=float, default=600.0, help="in total (%(default)g)")
    parser.add_argument("--seed", type=int, default=1, help="of the generated inputs (%(default)s)")
    parser.add_argument("--folder", type=Path, default=Path(".fuzz"), help="for findings (%(default)s)")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run a finding's input again")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.targets if name not in TARGETS]:
        parser.error(f"there is no target {unknown[0]}; there are {', '.join(TARGETS)}")
    if arguments.replay:
        with tempfile.TemporaryDirectory(prefix="nameshot-fuzz-") as folder:
            report = replay(read_finding(arguments.replay), Path(folder))
        print(report or "the input no longer fails")
        return 1 if report else 0
    return run(arguments.targets or TARGETS, arguments.seconds, arguments.seed, arguments.folder)


def run(names: list[str], seconds: float, seed: int, findings_folder: Path) -> int:
    """Fuzz each target for an equal part of the time, and print the findings."""
    engine = "Atheris" if importlib.util.find_spec("atheris") else "blind mutation, as there is no Atheris"
    table = Table(title=f"{seconds:g} s by {engine}, seed {seed}")
    for column in ("target", "cases", "seconds", "findings"):
        table.add_column(column, justify="left" if column == "target" else "right")
    files = []
    for name in names:
        with tempfile.TemporaryDirectory(prefix="nameshot-fuzz-") as folder:
            found = fuzz(f"tests.fuzz.targets.{name}", Path(folder), seconds=seconds / len(names), seed=seed)
        table.add_row(name, f"{found.cases:,}", f"{found.duration_s:.0f}", str(len(found.findings)))
        files += [(finding.write(findings_folder), finding.headline) for finding in found.findings]
    Console().print(table)
    for file, headline in files:
        print(f"{file}: {headline}", file=sys.stderr)
    return 1 if files else 0


if __name__ == "__main__":
    sys.exit(main())
