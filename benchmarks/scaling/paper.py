"""From what was measured on one machine to many machines, on paper: formulas, and the inputs that are assumed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

#: Images/s of the image tower alone on an RTX 4090, decoding excluded: timm's results, PyTorch 2.9.1, AMP, batches of
#: 1,024, 224 pixels; the models of OpenAI's weights (``…_clip_quickgelu_224``).
TIMM: Final = (
    "https://github.com/huggingface/pytorch-image-models/blob/main/results/"
    "benchmark-infer-amp-nchw-pt291-cu128-4090.csv"
)
GPU_IMAGES_PER_S: Final = {"ViT-L/14": 657.0, "ViT-B/32": 9834.0}
#: Half a core of Valkey for the work, half for bursts, the append-only file's rewrites and whoever looks.
BROKER_SHARE: Final = 0.5
#: Valkey's default.
MAX_CONNECTIONS: Final = 10_000
#: US dollars an hour: round figures of 2026's order of magnitude, to be replaced by one's own.
GPU_USD_PER_H: Final = 0.50
CORE_USD_PER_H: Final = 0.04


@dataclass(frozen=True, slots=True)
class Measured:
    """What the formulas take from ``results/scaling.json``; CPU times are per image.

    Attributes:
        worker_cpu_ms: with downloading, decoding and resizing, in bulk.
        process_images_per_s: what one worker process did of that at least.
        broker_limits: images/s at which Valkey fills a core, by load.
        connections: of one worker to Valkey.
        idle_ms_per_s: CPU time of Valkey for one worker that waits.
    """

    worker_cpu_ms: float
    client_cpu_ms: float
    process_images_per_s: float
    picture_bytes: int
    broker_limits: Mapping[str, float]
    connections: float
    idle_ms_per_s: float

    @classmethod
    def of(cls, report: Mapping[str, Any]) -> Self:
        """Of the benchmark's report."""
        largest = {row["load"]: row for row in report["rows"]}  # the last of each has the most workers
        fetched = {row["load"]: row for row in report["one_process"] if row["pictures"] == "fetched"}
        return cls(
            worker_cpu_ms=fetched["bulk"]["worker_cpu_ms"],
            client_cpu_ms=largest["bulk"]["client_cpu_ms"],
            process_images_per_s=fetched["bulk"]["images_per_s"],
            picture_bytes=report["fetched_picture"]["mean_bytes"],
            broker_limits={load: row["broker_limit_images_per_s"] for load, row in largest.items()},
            connections=max(row["connections_per_worker"] for row in report["one_process"]),
            idle_ms_per_s=report["idle"]["valkey_cpu_ms_per_worker_s"],
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """What so many GPUs need around them to be busy.

    Attributes:
        processes: worker processes in all.
        brokers: shards, by load.
    """

    gpus: int
    images_per_s: float
    network_gbit_per_s: float
    worker_cores: float
    producer_cores: float
    processes: int
    brokers: Mapping[str, int]


def plan(measured: Measured, gpus: int, gpu_images_per_s: float) -> Plan:
    """Every GPU at its published rate; each figure is a product or a quotient."""
    images_per_s = gpus * gpu_images_per_s
    processes = gpus * math.ceil(gpu_images_per_s / measured.process_images_per_s)
    for_workers = max(
        math.ceil(processes * measured.connections / MAX_CONNECTIONS),
        math.ceil(processes * measured.idle_ms_per_s / 1000 / BROKER_SHARE),
    )
    return Plan(
        gpus=gpus,
        images_per_s=images_per_s,
        network_gbit_per_s=images_per_s * measured.picture_bytes * 8 / 1e9,
        worker_cores=images_per_s * measured.worker_cpu_ms / 1000,
        producer_cores=images_per_s * measured.client_cpu_ms / 1000,
        processes=processes,
        brokers={
            load: max(for_workers, math.ceil(images_per_s / (limit * BROKER_SHARE)))
            for load, limit in measured.broker_limits.items()
        },
    )


def usd_per_million(measured: Measured, gpu_images_per_s: float) -> tuple[float, float]:
    """What a million images cost: the GPU's part, and that of the worker's and producer's cores."""
    gpu = GPU_USD_PER_H / 3600 / gpu_images_per_s * 1e6
    cpu_s = (measured.worker_cpu_ms + measured.client_cpu_ms) / 1000
    return gpu, CORE_USD_PER_H / 3600 * cpu_s * 1e6
