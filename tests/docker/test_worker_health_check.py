"""The health check of docker-compose.yml, run as Docker runs it, with a worker's real probes."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from worker.observability.metrics import Telemetry
from worker.observability.probes import Probes
from worker.settings import WorkerSettings


@contextmanager
def probes(not_ready: str | None) -> Iterator[Probes]:
    """A worker's HTTP server of probes, on a free port."""
    served = Probes(Telemetry(), host="127.0.0.1", port=0, not_ready=lambda: not_ready, not_healthy=lambda: None)
    try:
        yield served
    finally:
        served.close()


def check(worker: dict[str, Any], port: int) -> subprocess.CompletedProcess[str]:
    """Run the health check's command with this port instead of the container's."""
    kind, program, *arguments = worker["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "python")
    default = str(WorkerSettings.model_fields["metrics_port"].default)
    assert default in arguments[-1]
    arguments[-1] = arguments[-1].replace(default, str(port))
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=30, check=False)


def test_a_worker_that_takes_jobs_is_healthy(worker: dict[str, Any]) -> None:
    with probes(not_ready=None) as served:
        outcome = check(worker, served.port)

    assert (outcome.returncode, outcome.stdout.strip()) == (0, "ok")


def test_a_worker_that_takes_no_jobs_is_unhealthy_with_the_reason(worker: dict[str, Any]) -> None:
    with probes(not_ready="the broker does not answer") as served:
        outcome = check(worker, served.port)

    assert (outcome.returncode, outcome.stdout.strip()) == (1, "the broker does not answer")


def test_a_worker_that_does_not_respond_is_unhealthy(worker: dict[str, Any]) -> None:
    with probes(not_ready=None) as served:
        port = served.port

    assert check(worker, port).returncode == 1
