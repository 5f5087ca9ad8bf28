"""The whole system under load: Valkey, one real worker, real HTTP, the real client."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.picture_server import picture_server
from producer import Client
from producer.embedded import RunningValkey, WorkerProcess, embedded_valkey

#: Distinct pictures; enough that no cache below us could hide the work.
PICTURES = 64
TIMEOUT_S = 600.0


@dataclass(frozen=True)
class System:
    """A running system and a client of it."""

    client: Client
    picture_port: int

    def _url(self, number: int) -> str:
        return f"http://127.0.0.1:{self.picture_port}/{number % PICTURES}.jpg"

    def single_jobs_per_s(self, jobs: int, labels: list[str]) -> tuple[float, float]:
        """Submit single jobs at once; jobs a second from the first submission to the last answer, and mean batch."""
        started = time.perf_counter()
        handles = list(self.client.submit_many([(self._url(number), labels) for number in range(jobs)]))
        results = [handle.result(timeout=TIMEOUT_S) for handle in handles]
        elapsed_s = time.perf_counter() - started
        return jobs / elapsed_s, sum(result.batch_size for result in results) / jobs

    def bulk_images_per_s(self, images: int, labels: list[str]) -> tuple[float, float]:
        """The same images in bulk messages."""
        started = time.perf_counter()
        urls = [self._url(number) for number in range(images)]
        results = [outcome.result for outcome in self.client.classify_many(urls, labels) if outcome.result]
        elapsed_s = time.perf_counter() - started
        if len(results) != images:
            raise RuntimeError(f"{images - len(results)} of {images} images failed")
        return images / elapsed_s, sum(result.batch_size for result in results) / images


def worker_settings(valkey: RunningValkey, model: Path, picture_port: int) -> dict[str, str]:
    """The measured worker's whole environment of ours."""
    return {
        "NAMESHOT_BROKER_URL": valkey.broker_url,
        "NAMESHOT_RESULT_BACKEND": valkey.result_backend,
        "NAMESHOT_MODEL": str(model),
        "NAMESHOT_FETCH_ALLOW": f"127.0.0.1/32:{picture_port}",
        "NAMESHOT_DEVICE": "cpu",
        "NAMESHOT_METRICS_PORT": "0",
        # There are fewer pictures than jobs, and every job is to do all of its work.
        "NAMESHOT_EMBEDDING_CACHE_BYTES": "0",
        "NAMESHOT_FETCH_COALESCE": "false",
    }


@contextmanager
def running_system(model: Path) -> Iterator[System]:
    """Start everything, wait until the worker takes jobs, and stop everything."""
    with (
        tempfile.TemporaryDirectory() as folder,
        embedded_valkey() as valkey,
        picture_server(PICTURES) as port,
        Client(valkey.broker_url, valkey.result_backend) as client,
    ):
        worker = WorkerProcess(worker_settings(valkey, model, port), Path(folder))
        try:
            worker.wait_until_ready()
            yield System(client, port)
        finally:
            worker.stop()
