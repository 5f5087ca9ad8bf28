"""Compares a latency target with fixed batch sizes under a mixed load: ``python -m benchmarks.adaptive``.

The real batcher drives a device that sleeps. Every setting runs through the same phases with the same arrivals. The
benchmark writes ``results/adaptive.json``, from which ``python -m tests.docs.tables`` makes the table in
``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import cpu_name
from benchmarks.scaling.device import Device
from producer.contract.names import Queue
from worker.concurrency.shares import WEIGHTS
from worker.engine.batch_queue import BatchQueue
from worker.engine.batch_size import BatchSize
from worker.engine.batcher import Batcher
from worker.engine.local import PROMISED

RESULTS = Path(__file__).parent / "results" / "adaptive.json"
#: This device resembles a GPU that processes some 400 images/s and has a fixed cost per batch.
DEVICE: Final = Device(forward_ms=10, image_ms=2, max_batch=32)
#: The standard deviation of a batch's time, as a share of it.
SPREAD: Final = 0.05
TARGET_MS: Final = 120
#: Three batches of the largest size are in flight, as in `worker.engine.capacity`.
BACKLOG: Final = 3 * DEVICE.max_batch


@dataclasses.dataclass(frozen=True, slots=True)
class Phase:
    """A kind of load for a number of seconds.

    Attributes:
        queue: the queue of the images that arrive one by one, at random.
        per_s: how many of these images arrive per second.
        backlog: the number of bulk images that wait at any moment.
        slowness: the factor by which the device is slower than usual.
    """

    name: str
    seconds: float
    queue: Queue
    per_s: float
    backlog: int = 0
    slowness: float = 1

    def arrivals_s(self) -> Iterator[float]:
        """Yield the arrival times in seconds from the phase's beginning; they are the same in every run."""
        chance, at_s = random.Random(self.name), 0.0
        while (at_s := at_s + chance.expovariate(self.per_s)) < self.seconds:
            yield at_s


PHASES: Final = (
    Phase("quiet", 4, "default", per_s=20),
    Phase("backlog", 5, "high", per_s=30, backlog=BACKLOG),
    Phase("rush", 5, "default", per_s=350),
    Phase("crush", 5, "default", per_s=390),  # 93 % of the rate with the largest batches
    Phase("slow device", 5, "high", per_s=30, backlog=BACKLOG, slowness=2),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """How a worker forms batches; without a target, the batch size is fixed."""

    max_batch: int
    max_wait_ms: float
    target_ms: float | None = None

    @property
    def name(self) -> str:
        """The setting's name in the table."""
        size = f"target {self.target_ms:g} ms" if self.target_ms else f"fixed {self.max_batch}"
        return f"{size}, wait {self.max_wait_ms:g} ms" if self.max_wait_ms else size


SETTINGS: Final = (
    *(Setting(size, wait_ms) for size in (1, 4, 8, 16, 32) for wait_ms in (0, 10)),
    *(Setting(DEVICE.max_batch, wait_ms, TARGET_MS) for wait_ms in (0, 10)),
)


class Bench:
    """The batcher of one setting, with the sleeping device."""

    def __init__(self, setting: Setting) -> None:
        self.size = BatchSize(setting.target_ms / 1000 if setting.target_ms else None, PROMISED)
        self.slowness = 1.0
        self._chance = random.Random(setting.name)
        self.batcher = Batcher(max_wait_s=setting.max_wait_ms / 1000)
        self.queue: BatchQueue[None, None] = self.batcher.add_queue(
            "images", self._run, setting.max_batch, WEIGHTS, self.size
        )
        self.batcher.start()

    def _run(self, images: Sequence[None]) -> Sequence[None]:
        spread = max(0.0, self._chance.gauss(1, SPREAD))
        time.sleep((DEVICE.forward_ms + DEVICE.image_ms * len(images)) / 1000 * self.slowness * spread)
        return images

    def meet(self, phase: Phase) -> dict[str, Any]:
        """Run a phase, cancel the images that still wait at its end, and return the rates and latencies."""
        self.slowness = phase.slowness
        ended = threading.Event()
        started, answered, sizes = time.perf_counter(), list[Queue](), list[int]()
        latencies_ms = dict[Future[Any], float]()
        futures = list[tuple[float, Future[Any]]]()

        def send_bulk(done: Future[Any] | None = None) -> None:
            if done is not None and not done.cancelled() and not ended.is_set():
                answered.append("bulk")
                sizes.append(done.result().batch_size)
            if not ended.is_set():
                self.queue.submit(None, rank="bulk").add_done_callback(send_bulk)

        def arrived(due: float, done: Future[Any]) -> None:
            if not done.cancelled() and not ended.is_set():
                answered.append(phase.queue)
                sizes.append(done.result().batch_size)
                latencies_ms[done] = (time.perf_counter() - due) * 1000

        for _ in range(phase.backlog):
            send_bulk()
        for at_s in phase.arrivals_s():
            due = started + at_s
            time.sleep(max(0.0, due - time.perf_counter()))
            future = self.queue.submit(None, rank=phase.queue)
            futures.append((due, future))
            future.add_done_callback(partial(arrived, due))
        # The last images get the target time to be answered; those that still wait afterwards are late.
        time.sleep(max(0.0, started + phase.seconds + TARGET_MS / 1000 - time.perf_counter()))
        ended.set()
        end = time.perf_counter()
        for _, future in futures:
            future.cancel()
        self._drain()
        # An image without an answer counts with the time that it has waited so far, which its latency would exceed.
        all_ms = [latencies_ms.get(future, (end - due) * 1000) for due, future in futures]
        cuts = statistics.quantiles(all_ms, n=100)
        return {
            "phase": phase.name,
            "images_per_s": len(answered) / (end - started),
            "p50_ms": cuts[49],
            "p95_ms": cuts[94],
            "p99_ms": cuts[98],
            "within_target": sum(ms <= TARGET_MS for ms in all_ms) / len(all_ms),
            "median_batch": statistics.median(sizes),
            "learned_ms": [self.size.line.fixed_s * 1000, self.size.line.item_s * 1000],
        }

    def _drain(self) -> None:
        """Wait until no image waits and no batch runs."""
        while len(self.queue) or self.batcher.busy_s:
            time.sleep(0.005)


def measure(setting: Setting, phases: Sequence[Phase]) -> dict[str, Any]:
    """Run one setting through all phases and return its results."""
    bench = Bench(setting)
    try:
        met = [bench.meet(phase) for phase in phases]
    finally:
        bench.batcher.close()
    return {"setting": setting.name, "phases": met}


def main() -> None:
    """Measure every setting and write the report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adaptive", description=__doc__)
    parser.add_argument("--seconds", type=float, help="duration of each phase, instead of 4 or 5")
    parser.add_argument("--output", type=Path, default=RESULTS, help="file for the report")
    chosen = parser.parse_args()
    phases = [dataclasses.replace(phase, seconds=chosen.seconds or phase.seconds) for phase in PHASES]
    report: dict[str, Any] = {
        "machine": {"cpu": cpu_name(), "cores": os.cpu_count(), "load_average_before": os.getloadavg()},
        "device": {**dataclasses.asdict(DEVICE), "spread": SPREAD},
        "target_ms": TARGET_MS,
        "phases": [dataclasses.asdict(phase) for phase in phases],
        "settings": [],
    }
    for setting in SETTINGS:
        row = measure(setting, phases)
        report["settings"].append(row)
        for met in row["phases"]:
            print(
                f"{row['setting']:>24} {met['phase']:>12}: {met['images_per_s']:6.1f} images/s, "
                f"p95 {met['p95_ms']:7.1f} ms, {met['within_target']:4.0%} within {TARGET_MS} ms",
                flush=True,
            )
    chosen.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
