"""Measures the engine's images per second, in this process and in an engine process, beside the bare forward pass."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.first_gpu.given import Given
from benchmarks.first_gpu.notes import Notes
from benchmarks.fronts import engine_process, together_per_s
from benchmarks.gpu import local_rate
from benchmarks.raw import Raw
from worker.engine.capacity import default_concurrency
from worker.model import load_model


def run(given: Given, notes: Notes) -> None:
    """Measure each model, with a worker's usual batches, and with larger batches and the most fronts."""
    counts = (1, 2) if given.quick else (1, 4, 8)
    for family in given.models:
        folder = given.checkpoint(family)
        model = load_model(str(folder), device=given.device)
        model.warm_up()
        usual, *larger = given.batches[: 1 if given.quick else 2]
        bare = {size: Raw(model, size).eager_per_s(given.seconds(0.5)) for size in (usual, *larger)}
        in_flight = default_concurrency(usual, model.parallel_batches)
        local = local_rate(model, usual, in_flight, given.seconds(2))
        rows: dict[str, Any] = {"bare images/s": {str(size): rate for size, rate in bare.items()}, "LocalEngine": local}
        notes.figure(family, rows)
        parallel = model.parallel_batches
        del model  # the engine process should have the device to itself
        for size in bare:
            # Each front has half of the usual images in flight, so that four fronts compete as a worker's jobs do.
            threads = -(-default_concurrency(size, parallel) // 2)
            fronts = counts if size == usual else counts[-1:]
            rates = {}
            for count, row in _through_a_process(given, folder, size, threads, fronts):
                rates[count] = row["images/s"]
                rows[f"batches of {size}, fronts: {count}"] = {**row, "of bare": rates[count] / max(bare.values())}
                notes.figure(family, rows)
            notes.check(f"{family}, batches of {size}: all fronts get answers", all(rates.values()), rates)
            notes.line(
                f"{family}, batches of {size}: bare {bare[size]:,.0f} images/s, "
                + (f"LocalEngine {local:,.0f}, " if size == usual else "")
                + ", ".join(f"{count} fronts {rate:,.0f}" for count, rate in rates.items())
            )


def _through_a_process(
    given: Given, folder: Path, size: int, threads: int, counts: Sequence[int]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each number of fronts and its figures; all fronts stay connected, and some are idle if fewer measure."""
    seconds = given.seconds(3)
    with engine_process(folder, given.device, size) as engine, contextlib.ExitStack() as stack:
        with ThreadPoolExecutor(max(counts)) as starting:
            opened = starting.map(lambda _: stack.enter_context(engine.front(threads, seconds)), range(max(counts)))
            clients = list(opened)
        for count in counts:
            before = _thread_cpu_s(engine.process.pid)
            rate = together_per_s(clients[:count])
            after = _thread_cpu_s(engine.process.pid)
            us = [1e6 * (cpu_s - before.get(thread, 0.0)) / (rate * seconds) for thread, cpu_s in after.items()]
            busiest = [round(each, 1) for each in sorted(us, reverse=True)[:6]]
            yield count, {"images/s": rate, "engine's CPU, us an image": sum(us), "by thread": busiest}


def _thread_cpu_s(pid: int) -> dict[str, float]:
    """Return the CPU seconds so far of each thread of a process."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has just ended
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            found[task.name] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found
