"""``make bench``: measures the limits, nameshot, and its alternatives (the peers) side by side in one run.

It prints tables. A whole run (all peers, the default labels, not ``--quick``) writes ``benchmarks/results/table.json``,
``docs/throughput.svg`` and ``docs/latency.svg``; any other run writes only ``benchmarks/.scratch/table.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks import plot, report, scratch, table
from benchmarks.comparison import Comparison
from benchmarks.labels import Labels
from benchmarks.limit import BareModel
from benchmarks.machine import cpu_name
from benchmarks.peers.contenders import NAMESHOT, PEERS
from benchmarks.peers.reference import references
from benchmarks.picture_server import picture, picture_server
from benchmarks.plan import Plan
from benchmarks.session import CLIENTS, Place
from benchmarks.stages.measure import stages
from benchmarks.system import PICTURES
from producer.settings import BUNDLED
from worker.runtime.allocator import bound_malloc
from worker.runtime.garbage import freeze_garbage

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "table.json"
PLOTS = HERE.parent / "docs"
SAME, DIFFERENT, PEERS_LABELS = (4, 100, 1000), (4, 100, 1000), (4, 100)


def main() -> None:
    """Measure everything; print and write the results."""
    bound_malloc()  # the limits run with the same malloc settings as a worker
    arguments = parsed()
    peers = [] if arguments.without_peers else [one for one in PEERS if one.name in (arguments.only or names())]
    peers_labels = [count for count in PEERS_LABELS if count in arguments.labels] or arguments.labels[:1]
    # A quick run only shows that everything runs.
    rounds, window_s, offered_s = (1, 2.0, 4.0) if arguments.quick else (arguments.rounds, 10.0, 10.0)
    plan = Plan(arguments.labels, arguments.different, peers_labels, rounds, window_s, offered_s)
    console = Console(width=180)
    began, load_average = time.monotonic(), os.getloadavg()

    def announce(what: str) -> None:
        console.print(f"{time.monotonic() - began:5.0f} s  {what} …")

    announce("the checkpoint")
    model = scratch.checkpoint(arguments.family)
    announce("the pipeline's own answers")
    expected = dict(
        zip(peers_labels, references(model, [Labels(count).next_set() for count in peers_labels]), strict=True)
    )
    by_stage: list[dict[str, Any]] = []
    with picture_server(PICTURES) as port:
        place = Place(model.resolve(), port, scratch.FOLDER / "venvs")
        bare = BareModel(model, [picture(number) for number in range(PICTURES)])
        # This process is also nameshot's client, and a client's garbage collection rarely has a model to scan.
        freeze_garbage()
        comparison = Comparison(plan, bare, place, expected, announce)

        def written() -> dict[str, Any]:
            found = {
                "machine": {
                    "cpu": cpu_name(),
                    "cores": os.cpu_count(),
                    "python": platform.python_version(),
                    "torch": torch.__version__,
                    "load_average_before": load_average,
                },
                "model": arguments.family,
                "clients": CLIENTS,
                "plan": asdict(plan),
                "minutes": round((time.monotonic() - began) / 60, 1),
                "ways": {"forward": asdict(comparison.forward_way), "loop": asdict(comparison.loop_way)},
                "rows": report.rows(comparison.samples),
                "latencies": report.latencies(comparison.latencies_ms, comparison.loop_per_s),
                "lone": report.lone(comparison.lone_ms, comparison.direct_ms, comparison.lone_stages_ms),
                "contenders": comparison.contenders,
                "stages": by_stage,
                "samples": comparison.samples,
            }
            (scratch.FOLDER / "table.json").write_text(json.dumps(found, indent=1) + "\n")
            return found

        comparison.measure(peers, written)
        jobs = 32 if arguments.quick else 128
        labels_by_stage = [Labels(count) for count in dict.fromkeys((plan.same[0], plan.same[-1]))]
        for name, one, count in ((arguments.family, place.model, jobs), (BUNDLED, BUNDLED, 4 * jobs)):
            announce(f"{name}: by stage")
            by_stage += [{"model_name": name, **row} for row in stages(one, port, count, labels_by_stage)]
    found = written()
    for title, columns, cells in table.tables(found):
        console.print(table.for_terminal(title, columns, cells))
    console.print(table.in_words(found, NAMESHOT.name))
    is_usual = (arguments.family, plan.same, plan.different) == (scratch.VIT_B32, SAME, DIFFERENT)
    is_whole = is_usual and not arguments.quick and len(peers) == len(PEERS)
    if is_whole:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
        (PLOTS / "throughput.svg").write_text(plot.throughput(table.in_order(found["rows"])))
        (PLOTS / "latency.svg").write_text(plot.latency(found["latencies"]))
    announce(f"written to {RESULTS if is_whole else scratch.FOLDER / 'table.json'}")


def parsed() -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--family", default=scratch.VIT_B32, help="a random checkpoint's geometry (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; medians are reported (%(default)s)")
    parser.add_argument(
        "--labels", type=counts, default=SAME, help="label counts of jobs with the same labels (4,100,1000)"
    )
    parser.add_argument(
        "--different", type=counts, default=DIFFERENT, help="label counts of jobs with labels of their own; '' for none"
    )
    parser.add_argument("--without-peers", action="store_true", help="measure only the limits and nameshot")
    parser.add_argument("--only", action="append", choices=names(), help="measure only this peer; may be repeated")
    parser.add_argument("--quick", action="store_true", help="run one short round, to see that everything runs")
    return parser.parse_args()


def counts(text: str) -> tuple[int, ...]:
    """Parse numbers that are separated by commas."""
    return tuple(int(number) for number in text.split(",") if number)


def names() -> list[str]:
    """Return the names of the peers."""
    return [peer.name for peer in PEERS]


if __name__ == "__main__":
    main()
