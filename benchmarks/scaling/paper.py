"""Extrapolates from one measured machine to many: the formulas and their assumed inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

#: The source of the images/s of the image tower alone on an RTX 4090, without decoding: timm's results with PyTorch
#: 2.9.1, AMP, batches of 1,024 and 224 pixels, for OpenAI's weights (``…_clip_quickgelu_224``).
TIMM: Final = (
    "https://github.com/huggingface/pytorch-image-models/blob/main/results/"
    "benchmark-infer-amp-nchw-pt291-cu128-4090.csv"
)
GPU_IMAGES_PER_S: Final = {"ViT-L/14": 657.0, "ViT-B/32": 9834.0}
#: Half of Valkey's core is for jobs; the other half is for bursts, rewrites of the append-only file and monitoring.
BROKER_SHARE: Final = 0.5
#: This is Valkey's default limit.
MAX_CONNECTIONS: Final = 10_000
#: US dollars per hour: round figures of 2026's order of magnitude, which readers should replace with their own.
GPU_USD_PER_H: Final = 0.50
CORE_USD_PER_H: Final = 0.04


@dataclass(frozen=True, slots=True)
class Measured:
    """What the formulas take from ``results/scaling.json``; CPU times are per image.

    Attributes:
        worker_cpu_ms: a worker's CPU time in bulk, including download, decoding and resize.
        process_images_per_s: the images/s that one worker process reached with this work.
        broker_limits: the images/s at which Valkey uses a whole core, by load.
        connections: the number of one worker's connections to Valkey.
        idle_ms_per_s: Valkey's CPU time per second for one waiting worker.
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
        """Return the values in the benchmark's report."""
        largest = {row["load"]: row for row in report["rows"]}  # the last row of each load has the most workers
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
    """What a number of GPUs needs in order to be busy.

    Attributes:
        processes: the number of worker processes in all.
        brokers: the number of Valkey shards, by load.
    """

    gpus: int
    images_per_s: float
    network_gbit_per_s: float
    worker_cores: float
    producer_cores: float
    processes: int
    brokers: Mapping[str, int]


def plan(measured: Measured, gpus: int, gpu_images_per_s: float) -> Plan:
    """Return what this many GPUs need at their published rate; each figure is a product or a quotient."""
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
    """Return the cost of a million images: the GPU's part, and the part of the worker's and producer's cores."""
    gpu = GPU_USD_PER_H / 3600 / gpu_images_per_s * 1e6
    cpu_s = (measured.worker_cpu_ms + measured.client_cpu_ms) / 1000
    return gpu, CORE_USD_PER_H / 3600 * cpu_s * 1e6
