"""Measures how fast one process fills the queue, and at which cost: ``python -m benchmarks.producing``.

A real client submits jobs to a new Valkey with an append-only file and the ACL roles, and no worker takes them. The
benchmark writes ``results/producing.json`` and prints the results as a table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import redis
from rich.console import Console
from rich.table import Table

from benchmarks.machine import cpu_name
from producer import Client
from tests.valkey_server import ValkeyServer

RESULTS = Path(__file__).parent / "results" / "producing.json"
LABELS: Final = (4, 20)
IMAGES_PER_MESSAGE: Final = 32
#: A client subscribes to some hundred answers in milliseconds; if it takes longer than this, the machine is broken.
LISTENING_TIMEOUT_S: Final = 10.0


class Meter:
    """Measures the time, and the CPU time of the producer and of Valkey, from `start` to `stop`.

    Args:
        operator: a connection of the default user, who may run every command.
    """

    def __init__(self, operator: redis.Redis) -> None:
        self._operator = operator

    def start(self) -> None:
        """Empty Valkey and begin to measure."""
        self._operator.flushall()
        self._before = self._now()

    def stop(self, answers: int = 0) -> None:
        """Stop as soon as the client has subscribed to this many answers."""
        deadline_s = time.monotonic() + LISTENING_TIMEOUT_S
        while answers and len(self._operator.pubsub_channels()) < answers:
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"the client has not subscribed to {answers} answers in {LISTENING_TIMEOUT_S:g} s")
            time.sleep(0.002)
        self.wall_s, self.producer_cpu_s, self.valkey_cpu_s = (
            after - before for before, after in zip(self._before, self._now(), strict=True)
        )

    def _now(self) -> tuple[float, float, float]:
        cpu: Any = self._operator.info("cpu")
        return time.perf_counter(), time.process_time(), cpu["used_cpu_user"] + cpu["used_cpu_sys"]


def submit(client: Client, urls: list[str], labels: list[str], meter: Meter) -> None:
    """Send one message in one round trip per image."""
    for url in urls:
        client.submit(url, labels)
    meter.stop()


def submit_many(client: Client, urls: list[str], labels: list[str], meter: Meter) -> None:
    """Send one message per image, and many messages per round trip."""
    client.submit_many((url, labels) for url in urls)
    meter.stop()


def classify_many(client: Client, urls: list[str], labels: list[str], meter: Meter) -> None:
    """Send many images per message, and subscribe to each answer; cancel the messages after the measurement."""
    messages = len(urls) // IMAGES_PER_MESSAGE

    def source() -> Iterator[str]:
        yield from urls
        meter.stop(messages)  # the client has sent the last message before it requests more images
        raise EOFError

    with suppress(EOFError):
        stream = client.classify_many(source(), labels, images_per_message=IMAGES_PER_MESSAGE, in_flight=messages + 1)
        next(stream)


@dataclass(frozen=True)
class Way:
    """A way of sending.

    Attributes:
        images: the number of images in one round; all ways together take some seconds.
        images_per_message: the number of images in one message.
        target_per_s: the fewest images per second that are good enough on two cores.
    """

    send: Callable[[Client, list[str], list[str], Meter], None]
    images: int
    images_per_message: int
    target_per_s: int


WAYS: Final = (
    Way(submit, 2_000, 1, 1_000),
    Way(submit_many, 6_000, 1, 3_000),
    Way(classify_many, 600 * IMAGES_PER_MESSAGE, IMAGES_PER_MESSAGE, 20_000),
)


def main() -> None:
    """Measure all ways; print and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.producing", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds; medians are reported (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the file to write (%(default)s)")
    arguments = parser.parse_args()
    load_before, _, _ = os.getloadavg()
    rounds: dict[tuple[Way, int], list[dict[str, float]]] = {(way, labels): [] for labels in LABELS for way in WAYS}
    with (
        tempfile.TemporaryDirectory() as folder,
        # A rewrite of the append-only file during a round would be measured too.
        ValkeyServer(Path(folder), ("--auto-aof-rewrite-percentage", "0")) as valkey,
        valkey.connect() as operator,
        Client(valkey.broker_url, valkey.result_backend) as client,
    ):
        meter = Meter(operator)
        for number in range(arguments.rounds + 1):
            for (way, labels), measured in rounds.items():
                one = round_of(way, labels, client, meter)
                if number:  # the first round opens connections
                    measured.append(one)
    report = {
        "machine": {"cpu": cpu_name(), "cores": os.cpu_count(), "python": platform.python_version()},
        "load_before": round(load_before, 1),
        "ways": [summary(way, labels, measured) for (way, labels), measured in rounds.items()],
    }
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    show(report)


def round_of(way: Way, labels: int, client: Client, meter: Meter) -> dict[str, float]:
    """Send the images of one round and return its figures."""
    # The URLs have some 80 characters, like those of a shop or an object store.
    urls = [f"https://images.example/catalogue/2026/11/{n:08}/front-view.jpg?width=640&v=3" for n in range(way.images)]
    names = [f"a candidate label {number}" for number in range(labels)]
    meter.start()
    way.send(client, urls, names, meter)
    messages = way.images / way.images_per_message
    return {
        "images_per_s": round(way.images / meter.wall_s),
        "producer_cpu_ms_per_message": round(1000 * meter.producer_cpu_s / messages, 4),
        "valkey_cpu_ms_per_message": round(1000 * meter.valkey_cpu_s / messages, 4),
    }


def summary(way: Way, labels: int, rounds: list[dict[str, float]]) -> dict[str, Any]:
    """Return the median of each figure, and all rounds."""
    return {
        "method": way.send.__name__,
        "labels": labels,
        "images_per_message": way.images_per_message,
        "target_images_per_s": way.target_per_s,
        **{name: statistics.median(one[name] for one in rounds) for name in rounds[0]},
        "rounds": rounds,
    }


def show(report: dict[str, Any]) -> None:
    """Print one line per way."""
    machine = f"{report['machine']['cores']} cores of {report['machine']['cpu']}"
    table = Table(title=f"one producer process, {machine}, {report['load_before']} other processes ready to run")
    for name in ("method", "labels", "images/message", "images/s", "slowest … fastest round", "at least"):
        table.add_column(name, justify="left" if name == "method" else "right")
    for name in ("producer", "Valkey"):
        table.add_column(f"{name} CPU ms/message", justify="right")
    for way in report["ways"]:
        rates = [one["images_per_s"] for one in way["rounds"]]
        table.add_row(
            way["method"],
            str(way["labels"]),
            str(way["images_per_message"]),
            f"{way['images_per_s']:,.0f}",
            f"{min(rates):,} … {max(rates):,}",
            f"{way['target_images_per_s']:,}",
            f"{way['producer_cpu_ms_per_message']:.3f}",
            f"{way['valkey_cpu_ms_per_message']:.3f}",
        )
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
