"""Measure nameshot beside what one would run instead of it.

Writes ``benchmarks/results/peers.json`` and prints the same as a table.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from rich.console import Console

from benchmarks.machine import cpu_name
from benchmarks.peers.contenders import NAMESHOT, PEERS
from benchmarks.peers.measure import Plan, measured
from benchmarks.peers.reference import references
from benchmarks.peers.table import table_of, with_ratios
from benchmarks.picture_server import picture_server
from benchmarks.system import PICTURES
from tests.model.checkpoints import make_checkpoint

BENCHMARKS = Path(__file__).parents[1]
RESULTS = BENCHMARKS / "results" / "peers.json"
SCRATCH = BENCHMARKS / ".scratch"
FAMILY = "clip-vit-b32"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    names = [peer.name for peer in PEERS]
    parser.add_argument("--only", action="append", choices=names, help="beside nameshot itself; may be repeated")
    parser.add_argument("--jobs", type=int, default=96, help="jobs a round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; medians are reported (%(default)s)")
    parser.add_argument("--labels", default="4,100", help="candidate labels a job, comma-separated (%(default)s)")
    parser.add_argument("--clients", type=int, default=32, help="jobs asked for at once (%(default)s)")
    arguments = parser.parse_args()
    counts = [int(count) for count in arguments.labels.split(",")]
    label_sets = [[f"candidate label {number}" for number in range(count)] for count in counts]
    model = SCRATCH / FAMILY
    if not (model / "config.json").exists():
        make_checkpoint(FAMILY, model)
    console = Console(width=140)
    console.print("the pipeline's own answers …")
    expected = list(references(model, label_sets))
    rows = []
    with picture_server(PICTURES) as port:
        plan = Plan(
            model=model.resolve(),
            picture_port=port,
            venvs=SCRATCH / "venvs",
            label_sets=label_sets,
            expected=expected,
            jobs=arguments.jobs,
            rounds=arguments.rounds,
            clients=arguments.clients,
        )
        for contender in (NAMESHOT, *(peer for peer in PEERS if peer.name in (arguments.only or names))):
            rows += measured(contender, plan, lambda stage: console.print(f"{stage} …"))
    rows = with_ratios(rows, NAMESHOT.name)
    report = {
        "machine": {"cpu": cpu_name(), "cores": os.cpu_count()},
        "model": FAMILY,
        "jobs_a_round": arguments.jobs,
        "clients": arguments.clients,
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")
    title = f"{FAMILY}, {arguments.clients} clients, {os.cpu_count()} cores of {cpu_name()}"
    console.print(table_of(rows, title))


if __name__ == "__main__":
    main()
