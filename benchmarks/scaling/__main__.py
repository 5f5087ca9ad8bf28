"""``python -m benchmarks.scaling``: measures 1 to 16 workers with simulated devices and one Valkey.

It writes ``benchmarks/results/scaling.json`` and ``docs/scaling.svg``, and prints a table. It needs Linux, because it
reads CPU times from ``/proc``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import redis
from rich.console import Console
from rich.table import Table

from benchmarks.machine import cpu_name
from benchmarks.picture_server import SIZE, picture, picture_server
from benchmarks.scaling.costs import Reading, efficiency, idle, per_image, read, waking
from benchmarks.scaling.device import Device
from benchmarks.scaling.fleet import ROOT, Fleet
from benchmarks.scaling.load import LABELS, Load, measured
from benchmarks.scaling.plot import svg
from benchmarks.system import embedded_valkey
from producer import AsyncClient
from producer.embedded.valkey import RunningValkey

RESULTS = ROOT / "benchmarks" / "results" / "scaling.json"
PLOT = ROOT / "docs" / "scaling.svg"
#: These devices are so slow that sixteen workers leave time on two cores for Valkey and the client: a single job costs
#: all processes together some 7 ms of CPU time, and an image of a bulk message some 1.5 ms.
SINGLE = Load("single", 1, Device(forward_ms=40, image_ms=115, max_batch=4))
BULK = Load("bulk", 32, Device(forward_ms=20, image_ms=20, max_batch=32))
#: With this device, which takes no time, a process's own costs are measured, with the batch size of a GPU.
NO_TIME = Device(forward_ms=0, image_ms=0, max_batch=64)
LONE = Load("lone", 1, NO_TIME, is_lone=True)
LONE_TIMES = {"warm_up_s": 1.0, "window_s": 5.0}
#: The number of pictures on the picture server: more than any cache below the worker would hide.
PICTURES = 64
#: This is somewhat longer than two rounds, in each of which a worker renews its lease once.
IDLE_S = 6.0


Say = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Scene:
    """A Valkey, workers, and a client."""

    valkey: RunningValkey
    observer: redis.Redis
    fleet: Fleet
    url_of: Callable[[int], str]

    def read(self, images: int = 0) -> Reading:
        """Return the present values of the counters."""
        return read(self.observer, images=images, workers_cpu_s=self.fleet.cpu_s())

    def row(self, load: Load, workers: int, *, warm_up_s: float, window_s: float) -> dict[str, Any]:
        """Start workers until there are this many, and measure a row."""
        self.fleet.grow(workers)

        async def ask() -> tuple[Reading, Reading]:
            async with AsyncClient(self.valkey.broker_url, self.valkey.result_backend) as client:
                return await measured(
                    client, load, self.url_of, workers, self.read, warm_up_s=warm_up_s, window_s=window_s
                )

        costs = per_image(*asyncio.run(ask()))
        connections = self.read().connections - 1  # the client has closed its connections; one is the observer's
        return {
            "load": load.name,
            "pictures": load.pictures,
            "workers": workers,
            **costs,
            "connections_per_worker": round(connections / workers, 1),
        }

    def idle(self, workers: int) -> dict[str, Any]:
        """Start workers until there are this many, and measure them while they are idle."""
        self.fleet.grow(workers)
        time.sleep(1)  # until the work of starting has ended
        before = self.read()
        time.sleep(IDLE_S)
        return idle(before, self.read(), workers)


@contextmanager
def scene(device: Device, pictures: str) -> Iterator[Scene]:
    """Yield a scene without workers, and end it afterwards. Valkey has an append-only file, as a queue needs."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        valkey = stack.enter_context(embedded_valkey(persistent=True))
        settings = {
            **device.environment(),
            "NAMESHOT_BROKER_URL": valkey.broker_url,
            "NAMESHOT_RESULT_BACKEND": valkey.result_backend,
            "SCALING_PICTURES": pictures,
        }
        base = "http://pictures.invalid"
        if pictures == "fetched":
            port = stack.enter_context(picture_server(PICTURES))
            base = f"http://127.0.0.1:{port}"
            settings["NAMESHOT_FETCH_ALLOW"] = f"127.0.0.1/32:{port}"
        observer = stack.enter_context(redis.Redis.from_url(valkey.broker_url))
        fleet = stack.enter_context(Fleet(settings, folder))
        yield Scene(valkey, observer, fleet, lambda number: f"{base}/{number % PICTURES}.jpg")


def sweep(load: Load, counts: Sequence[int], say: Say, **times: float) -> list[dict[str, Any]]:
    """Measure more and more workers under one load; the efficiency compares each row with that of one worker."""
    rows: list[dict[str, Any]] = []
    with scene(load.device, load.pictures) as here:
        for workers in counts:
            row = here.row(load, workers, **times)
            one = rows[0]["images_per_s"] if rows else row["images_per_s"]
            rows.append({**row, "efficiency": round(efficiency(row["images_per_s"], workers, one), 3)})
            say(rows[-1])
    return rows


def waiting(workers: int, say: Say) -> dict[str, Any]:
    """Measure what this many waiting workers cost Valkey, without any job and with lone jobs."""
    with scene(LONE.device, LONE.pictures) as here:
        alone, among_many = (here.row(LONE, count, **LONE_TIMES) for count in (1, workers))
        costs = here.idle(workers)
    costs |= {"workers": workers, "waking": waking(alone, among_many, costs, workers)}
    say(costs)
    return costs


def ceilings(say: Say, **times: float) -> list[dict[str, Any]]:
    """Measure one worker whose device takes no time: the cost and the highest rate of the process itself."""
    rows = []
    for pictures in ("ready", "fetched"):
        with scene(NO_TIME, pictures) as here:
            for load in (SINGLE, BULK):
                asked = Load(load.name, load.images_per_message, NO_TIME, pictures)
                rows.append(here.row(asked, 1, **times))
                say(rows[-1])
    return rows


def main() -> None:
    """Measure everything; print and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--workers", default="1,2,4,8,16", help="numbers of workers, 1 first (%(default)s)")
    parser.add_argument("--warm-up-s", type=float, default=4.0, help="seconds before a row is measured (%(default)s)")
    parser.add_argument(
        "--window-s", type=float, default=10.0, help="seconds for which a row is measured (%(default)s)"
    )
    arguments = parser.parse_args()
    counts = [int(number) for number in arguments.workers.split(",")]
    if counts[0] != 1 or len(counts) < 2 or counts != sorted(set(counts)):
        parser.error(f"--workers {arguments.workers}: begin with 1, and increase from number to number")
    times = {"warm_up_s": arguments.warm_up_s, "window_s": arguments.window_s}
    console = Console(width=160)
    load_average = [os.getloadavg()]
    rows = [row for load in (SINGLE, BULK) for row in sweep(load, counts, console.print, **times)]
    idle_costs = waiting(counts[-1], console.print)
    one_process = ceilings(console.print, **times)
    load_average.append(os.getloadavg())
    report = {
        "machine": {
            "cpu": cpu_name(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "load_average_before": load_average[0],
            "load_average_after": load_average[1],
        },
        "labels": len(LABELS),
        "images_per_bulk_message": BULK.images_per_message,
        "devices": {
            load.name: {**asdict(load.device), "images_per_s": round(load.device.images_per_s, 2)}
            for load in (SINGLE, BULK)
        },
        "fetched_picture": {
            "size": SIZE,
            "mean_bytes": sum(len(picture(seed)) for seed in range(PICTURES)) // PICTURES,
        },
        **times,
        "rows": rows,
        "one_process": one_process,
        "idle": idle_costs,
    }
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")
    PLOT.write_text(svg(report["rows"]))
    show(report, console)


def show(report: dict[str, Any], console: Console) -> None:
    """Print all rows."""
    table = Table(title=f"{report['machine']['cpu']}, {report['machine']['cores']} cores; CPU ms are per image")
    names = [name for name in report["rows"][0] if name not in {"load", "pictures"}]
    for name in ("load", *names):
        table.add_column(name.replace("_", " "), justify="right", overflow="fold")
    for row in [*report["rows"], *report["one_process"]]:
        load = row["load"] if row in report["rows"] else f"{row['load']}, no device, {row['pictures']}"
        table.add_row(load, *(str(row.get(name, "")) for name in names))
    console.print(table)
    console.print(f"costs of an idle worker for Valkey, per second: {report['idle']}")


if __name__ == "__main__":
    main()
