"""Requests a worker's probes over HTTP."""

from __future__ import annotations

import time
from dataclasses import dataclass

import requests

from tests.acceptance.worker_process import Worker

OK = (200, "ok")


@dataclass(frozen=True)
class Probe:
    """Sends requests to the worker with this metrics port."""

    port: str

    def __call__(self, path: str) -> tuple[int, str]:
        answer = requests.get(f"http://127.0.0.1:{self.port}{path}", timeout=10)
        return answer.status_code, answer.text.strip()


def wait_for(probe: Probe, path: str, expected: tuple[int, str], worker: Worker) -> None:
    """Return once the worker gives the expected response; fail if the worker has ended."""
    while probe(path) != expected:
        assert worker.process.poll() is None, worker.log
        time.sleep(0.01)
