"""Measures the Redis memory of an image, waiting and answered: ``python -m benchmarks.redis_memory``.

It runs a new Valkey, a real client, and the real worker of `benchmarks.scaling` with a device that takes no time. The
benchmark writes ``results/redis_memory.json`` and prints it.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import redis

from benchmarks.scaling.device import Device
from benchmarks.scaling.fleet import Fleet
from producer import Client
from tests.valkey_server import ValkeyServer

RESULTS = Path(__file__).parent / "results" / "redis_memory.json"
URL_CHARACTERS: Final = 80
LABEL_CHARACTERS: Final = 10
DEVICE: Final = Device(0.0, 0.0, 64)
#: Valkey frees a connection's memory a moment after the connection has ended.
SETTLING_S: Final = 1.0


@dataclass(frozen=True)
class Load:
    """Images of one kind.

    Attributes:
        images_per_message: the number of images per bulk message; 1 for single jobs.
    """

    name: str
    labels: int
    images_per_message: int
    images: int


LOADS: Final = (
    Load("single", 4, 1, 5_000),
    Load("single", 100, 1, 5_000),
    Load("bulk", 4, 32, 300 * 32),
    Load("bulk", 100, 32, 300 * 32),
)


def main() -> None:
    """Measure all loads; write and print the results."""
    rows = [{**asdict(load), **measure(load)} for load in LOADS]
    report = {"url_characters": URL_CHARACTERS, "label_characters": LABEL_CHARACTERS, "rows": rows}
    text = json.dumps(report, indent=2) + "\n"
    RESULTS.write_text(text)
    print(text, end="")


def measure(load: Load) -> dict[str, float]:
    """Return the bytes of Redis memory per image of one load."""
    with tempfile.TemporaryDirectory() as folder, ValkeyServer(Path(folder)) as valkey, valkey.connect() as operator:
        empty_bytes = used_bytes(operator)
        with sent(load, valkey):
            waiting_bytes = used_bytes(operator)
            settings = {**valkey.settings("worker"), **DEVICE.environment(), "SCALING_PICTURES": "ready"}
            with Fleet(settings, Path(folder)) as fleet:
                fleet.grow(1)
                while operator.exists("nameshot.default", "nameshot.bulk") or holds_any(operator):
                    time.sleep(0.1)
        answered_bytes = used_bytes(operator)
    return {
        "waiting_bytes": round((waiting_bytes - empty_bytes) / load.images),
        "answered_bytes": round((answered_bytes - empty_bytes) / load.images),
    }


@contextmanager
def sent(load: Load, valkey: ValkeyServer) -> Iterator[None]:
    """Fill the queue with all images of a load; at the end of the context, wait for the answers of bulk messages."""
    urls = [
        f"https://images.example/{number:06}-".ljust(URL_CHARACTERS - 4, "x") + ".jpg" for number in range(load.images)
    ]
    labels = [f"label-{number:04}" for number in range(load.labels)]
    with Client(valkey.broker_url, valkey.result_backend) as client:
        if load.images_per_message == 1:
            client.submit_many((url, labels) for url in urls)
            yield
            return
        messages = load.images // load.images_per_message
        stream = client.classify_many(urls, labels, images_per_message=load.images_per_message, in_flight=messages + 1)
        reader = threading.Thread(target=lambda: [outcome.index for outcome in stream])
        reader.start()
        while client.queue_depths()["bulk"] < messages:
            time.sleep(0.1)
        yield
        reader.join()


def holds_any(operator: redis.Redis) -> bool:
    """Return whether a worker holds a message."""
    return next(operator.scan_iter("nameshot:in-flight:*"), None) is not None


def used_bytes(operator: redis.Redis) -> int:
    """Return the memory that Redis reports as used."""
    time.sleep(SETTLING_S)
    memory: Any = operator.info("memory")
    return int(memory["used_memory"])


if __name__ == "__main__":
    main()
