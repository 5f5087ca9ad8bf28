"""Measures what decoding in confined processes costs: ``python -m benchmarks.decoder_isolation``.

It measures all that a worker does with an image except the download, with decoding in threads and in processes, in
alternating rounds. Each round runs in its own process. The benchmark writes ``results/decoder_isolation.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks import scratch
from benchmarks.machine import cpu_name
from benchmarks.picture_server import picture
from producer.contract.job import ClassifyManyJob, Question
from producer.contract.result import Result
from producer.settings import BUNDLED
from worker.classifier import Attempt
from worker.concurrency.cancel_scope import CancelScope
from worker.fetch.files import File
from worker.model import load_model
from worker.service import build
from worker.settings import WorkerSettings

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "decoder_isolation.json"
#: Each case has a name, a model, a size in pixels, and the number of images per round.
CASES: Final = (
    ("bundled, 640x480", BUNDLED, (640, 480), 600),
    ("bundled, 4000x3000", BUNDLED, (4000, 3000), 24),
    ("ViT-B/32, 640x480", str(scratch.FOLDER / scratch.VIT_B32), (640, 480), 160),
)
DISTINCT: Final = 16
MODES: Final = ("thread", "process")
TIMEOUT_S: Final = 1_000.0


class Pictures:
    """A fetcher of generated pictures, whose URLs are numbers."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._pictures = [picture(number, size) for number in range(DISTINCT)]

    def fetch(self, url: str, **_: object) -> File:
        """Return the JPEG with this number."""
        return File(self._pictures[int(url) % DISTINCT])

    def close(self) -> None:
        """Do nothing."""


def one_round(mode: str, model: str, size: tuple[int, int], images: int) -> dict[str, float]:
    """Return images per second, and the CPU milliseconds per image of this process and its decoders together."""
    nowhere = "redis://localhost/0"
    settings = WorkerSettings.model_validate(
        {
            "broker_url": nowhere,
            "result_backend": nowhere,
            "model": model,
            "decoder": mode,
            "embedding_cache_bytes": 0,
        }
    )
    classifier = build(settings, load_model=load_model, on_device_lost=lambda: None).classifier
    classifier._fetcher = Pictures(size)

    def classified(count: int) -> None:
        job = ClassifyManyJob([str(number) for number in range(count)], Question(["owl", "fox", "cat", "dog"]))
        outcomes = classifier.classify_many(job, Attempt(CancelScope(time.monotonic() + TIMEOUT_S)))
        if not all(isinstance(outcome, Result) for outcome in outcomes):
            raise RuntimeError("an image failed")

    classified(2 * DISTINCT)
    cpu_s, started = total_cpu_s(), time.perf_counter()
    classified(images)
    elapsed_s, cpu_s = time.perf_counter() - started, total_cpu_s() - cpu_s
    classifier.close()
    return {"images_per_s": round(images / elapsed_s, 2), "cpu_ms_per_image": round(cpu_s / images * 1000, 3)}


def total_cpu_s() -> float:
    """Return the CPU seconds so far of this process and its children (``/proc/PID/schedstat`` has nanoseconds)."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    pids = [pid for file in children for pid in file.read_text().split()]
    theirs_ns = sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids)
    return used.ru_utime + used.ru_stime + theirs_ns / 1e9


def main() -> None:
    """Measure all cases; print and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decoder_isolation", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds; medians are reported (%(default)s)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one_round(*json.loads(arguments.one))))
        return
    scratch.checkpoint()
    machine = {"cpu": cpu_name(), "cores": os.cpu_count(), "load_average_before": os.getloadavg()}
    cases: dict[str, Any] = {}
    table = Table("", "CPU ms per image: thread", "process", "images/s: thread", "process")
    for name, *case in CASES:
        rounds: dict[str, list[dict[str, float]]] = {mode: [] for mode in MODES}
        for _ in range(arguments.rounds):
            for mode in MODES:
                told = json.dumps([mode, *case])
                done = subprocess.run(
                    [sys.executable, "-m", "benchmarks.decoder_isolation", "--one", told],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    check=True,
                )
                rounds[mode].append(json.loads(done.stdout))
        median = {
            mode: {key: statistics.median(one[key] for one in found) for key in found[0]}
            for mode, found in rounds.items()
        }
        cases[name] = {"median": median, "rounds": rounds}
        table.add_row(name, *(str(median[mode][key]) for key in ("cpu_ms_per_image", "images_per_s") for mode in MODES))
    Console(width=120).print(table)
    RESULTS.write_text(json.dumps({"machine": machine, "cases": cases}, indent=2) + "\n")


if __name__ == "__main__":
    main()
