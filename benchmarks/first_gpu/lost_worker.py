"""Tests a label that breaks the device of a worker without an engine process.

Its job must be poisoned, and all other jobs be answered.
"""

from __future__ import annotations

import sys
import time
from typing import Final

from benchmarks.first_gpu.breaking import LABEL
from benchmarks.first_gpu.given import Given
from benchmarks.first_gpu.lost import kept
from benchmarks.first_gpu.notes import Notes
from benchmarks.picture_server import picture_server
from benchmarks.system import embedded_valkey, worker_settings
from producer import Client, Job, JobFailed

JOBS: Final = 8
#: The fewest deaths after which a job counts as poisoned; the job was alone at one of them.
ATTEMPTS: Final = 3
TIMEOUT_S: Final = 250.0


def run(given: Given, notes: Notes) -> None:
    """Run the test."""
    with picture_server(1) as port, embedded_valkey() as valkey:
        settings = {
            **worker_settings(valkey, given.checkpoint(given.models[0]), port, device=given.device),
            "NAMESHOT_LOG_LEVEL": "WARNING",
            "NAMESHOT_MAX_ATTEMPTS": str(ATTEMPTS),
        }
        command = [sys.executable, "-m", "celery", "-A", "benchmarks.first_gpu.breaking", "worker"]
        with Client(valkey.broker_url, valkey.result_backend) as client:
            url = f"http://127.0.0.1:{port}/0.jpg"
            jobs = [client.submit(url, ["fox", LABEL if number == 0 else "owl"]) for number in range(JOBS)]
            started_s = time.monotonic()
            with kept(command, settings) as workers:
                outcomes = [_outcome(job) for job in jobs]
                deaths = [ended_s - started_s for ended_s in workers.ended_s]
    notes.figure("outcomes", outcomes)
    notes.figure("workers ended after, s", deaths)
    notes.check("the job that breaks the device is poisoned", outcomes[0] == "poisoned", outcomes[0])
    innocent = outcomes[1:].count("answered")
    notes.check("its neighbours are answered", innocent == JOBS - 1, f"{innocent} of {JOBS - 1}")
    notes.line(f"{outcomes[0]} after {len(deaths)} workers, {innocent} of {JOBS - 1} others answered")


def _outcome(job: Job) -> str:
    try:
        job.result(timeout=TIMEOUT_S)
    except JobFailed as failure:
        return failure.code
    return "answered"
