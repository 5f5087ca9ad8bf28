"""The tables of docs/operations.md: metrics from a worker's registry, and Redis's memory from
``benchmarks/results/redis_memory.json``.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client.metrics_core import Metric

from benchmarks.redis_memory import RESULTS
from producer.contract.result import ImageInfo, Result, Score, Timings
from producer.settings import read_settings
from tests.chaos.null_model import NullModel
from worker.service import Service, build
from worker.settings import WorkerSettings

#: The prefix of our metrics; the others are those of prometheus_client.
PREFIX = "nameshot_"


@contextmanager
def service() -> Iterator[Service]:
    """Build a worker's service with a model without weights."""
    settings = read_settings(
        WorkerSettings, model="bundled", shared_cache_bytes=1, decoder="thread", max_batch=1, concurrency=1
    )
    built = build(settings, load_model=lambda *_, **__: NullModel(), on_device_lost=lambda: None)
    try:
        yield built
    finally:
        built.close()


def metrics() -> str:
    """Return a table with a row for each of our metrics."""
    with service() as built:
        built.telemetry.succeeded(_any_result())
        built.telemetry.answered("ok")
        families = [family for family in built.telemetry.registry.collect() if family.name.startswith(PREFIX)]
    rows = [
        f"| `{_name(family)}` | {family.type} | {_labels(family)} | {family.documentation} |" for family in families
    ]
    return "\n".join(["| metric | type | label | meaning |", "| --- | --- | --- | --- |", *rows])


def memory() -> str:
    """Return a table with a row for each load."""
    report = json.loads(RESULTS.read_text())
    lines = ["| images | bytes an image, waiting | answered |", "| --- | ---: | ---: |"]
    lines += [f"| {_named(row)} | {row['waiting_bytes']:,} | {row['answered_bytes']:,} |" for row in report["rows"]]
    said = f"URLs of {report['url_characters']} characters, labels of {report['label_characters']}; ids are ours."
    return "\n".join(lines) + f"\n\n{said}"


def _named(row: dict[str, Any]) -> str:
    how = "single jobs" if row["images_per_message"] == 1 else f"bulk, {row['images_per_message']} a message"
    return f"{how}, {row['labels']} labels"


def _name(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


def _labels(family: Metric) -> str:
    """Return the label's name and its values, except for error codes, which are in docs/errors.md."""
    found: dict[str, list[str]] = {}
    for sample in family.samples:
        for name, value in sample.labels.items():
            if name != "le" and value not in found.setdefault(name, []):
                found[name].append(value)
    return "; ".join(
        f"`{name}`" if name == "code" else f"`{name}`: {', '.join(values)}" for name, values in found.items()
    )


def _any_result() -> Result:
    """Return a result with which the metrics of all stages exist."""
    image = ImageInfo(sha256="", width=1, height=1, format="PNG", bytes=1)
    return Result([Score("owl", 1.0)], "null", None, image, 1, Timings(0.0, 0.0, 0.0, 0.0, 0.0))


TABLES = {"metrics": metrics, "memory": memory}
