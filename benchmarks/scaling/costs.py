"""Computes what images cost in CPU time of each process, and in commands and bytes of Valkey."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import redis

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
#: The index of ``utime`` in ``/proc/<pid>/stat`` after the command's closing parenthesis; ``stime`` follows.
_UTIME = 11


def process_cpu_s(pid: int) -> float:
    """Return the CPU seconds of all threads of a process, user and system (Linux)."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[_UTIME]) + int(after_name[_UTIME + 1])) / _TICKS_PER_S


def efficiency(images_per_s: float, workers: int, one_workers_images_per_s: float) -> float:
    """Return the rate as a share of one worker's rate times the number of workers."""
    return images_per_s / (workers * one_workers_images_per_s)


def broker_limit(valkey_cpu_ms_per_image: float) -> float:
    """Return the images per second at which Valkey, which runs commands in one thread, uses a whole core."""
    return 1000 / valkey_cpu_ms_per_image


@dataclass(frozen=True, slots=True)
class Reading:
    """The counters at one moment; only differences between two readings are meaningful, except for connections.

    Attributes:
        valkey_bytes: the bytes that Valkey has received and sent.
        valkey_commands_s: the time of Valkey's event loop in commands, without reading, writing and waking up.
        commands: the number of commands that Valkey has run, including those in scripts.
        connections: the number of open connections at this moment.
    """

    at_s: float
    images: int
    workers_cpu_s: float
    client_cpu_s: float
    valkey_cpu_s: float
    valkey_commands_s: float
    valkey_bytes: int
    commands: int
    connections: int


def read(valkey: redis.Redis, *, images: int, workers_cpu_s: float) -> Reading:
    """Read the counters of this process, which is the client, and of Valkey."""
    info = valkey.info()
    return Reading(
        at_s=time.perf_counter(),
        images=images,
        workers_cpu_s=workers_cpu_s,
        client_cpu_s=time.process_time(),
        valkey_cpu_s=info["used_cpu_user"] + info["used_cpu_sys"],
        valkey_commands_s=info["eventloop_duration_cmd_sum"] / 1e6,
        valkey_bytes=info["total_net_input_bytes"] + info["total_net_output_bytes"],
        commands=info["total_commands_processed"],
        connections=info["connected_clients"],
    )


def per_image(before: Reading, after: Reading) -> dict[str, float]:
    """Return the rate, and the cost of an image, between two readings."""
    images, elapsed_s = after.images - before.images, after.at_s - before.at_s
    workers_s = after.workers_cpu_s - before.workers_cpu_s
    client_s = after.client_cpu_s - before.client_cpu_s
    valkey_s = after.valkey_cpu_s - before.valkey_cpu_s
    return {
        "images_per_s": round(images / elapsed_s, 2),
        "worker_cpu_ms": round(workers_s / images * 1000, 3),
        "client_cpu_ms": round(client_s / images * 1000, 3),
        "valkey_cpu_ms": round(valkey_s / images * 1000, 4),
        "valkey_commands_ms": round((after.valkey_commands_s - before.valkey_commands_s) / images * 1000, 4),
        "broker_limit_images_per_s": round(broker_limit(valkey_s / images * 1000)),
        "busy_cores": round((workers_s + client_s + valkey_s) / elapsed_s, 2),
        "commands": round((after.commands - before.commands) / images, 2),
        "valkey_kb": round((after.valkey_bytes - before.valkey_bytes) / images / 1000, 2),
    }


def idle(before: Reading, after: Reading, workers: int) -> dict[str, float]:
    """Return what an idle worker costs Valkey per second."""
    worker_s = (after.at_s - before.at_s) * workers
    return {
        "valkey_cpu_ms_per_worker_s": round((after.valkey_cpu_s - before.valkey_cpu_s) / worker_s * 1000, 3),
        "commands_per_worker_s": round((after.commands - before.commands) / worker_s, 1),
    }


def waking(
    alone: Mapping[str, float], among_many: Mapping[str, float], idle: Mapping[str, float], workers: int
) -> dict[str, float]:
    """Return what a lone job costs Valkey for each worker that waits while another one answers it.

    Args:
        alone: the costs of a lone job with one worker.
        among_many: the costs of a lone job with ``workers`` workers.
        idle: the costs of an idle worker, which are subtracted.
    """

    def each(of_job: str, of_idle: str) -> float:
        own, all_of_them = (
            row[of_job] - idle[of_idle] * count / row["images_per_s"]
            for row, count in ((alone, 1), (among_many, workers))
        )
        return (all_of_them - own) / (workers - 1)

    return {
        "commands": round(each("commands", "commands_per_worker_s"), 1),
        "valkey_cpu_ms": round(each("valkey_cpu_ms", "valkey_cpu_ms_per_worker_s"), 4),
    }
