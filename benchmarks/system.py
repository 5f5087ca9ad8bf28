"""Puts nameshot under load: submits many jobs at once, as single jobs or in bulk messages."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from benchmarks.labels import Labels, images_per_message
from benchmarks.load import Run
from producer import Client
from producer.embedded.valkey import RunningValkey

#: The number of different pictures, enough that no cache below the worker could hide the work.
PICTURES = 64
TIMEOUT_S = 600.0
#: The number of concurrent bulk messages with labels of their own; with the same labels it is the client's default.
MESSAGES_AT_ONCE = 4

Url = Callable[[int], str]


@contextmanager
def embedded_valkey(*, persistent: bool = False) -> Iterator[RunningValkey]:
    """Run a Valkey server in a temporary folder for the duration of a ``with`` block."""
    with (
        tempfile.TemporaryDirectory(prefix="nameshot-", ignore_cleanup_errors=True) as folder,
        RunningValkey(Path(folder), persistent=persistent) as valkey,
    ):
        yield valkey


def single_jobs(client: Client, url: Url, jobs: int, labels: Labels) -> Run:
    """Submit single jobs at once, and wait for all answers."""
    questions = [(url(number), labels.next_set()) for number in range(jobs)]
    answered_s = []
    started = time.perf_counter()
    for handle in client.submit_many(questions):
        handle.result(timeout=TIMEOUT_S)
        answered_s.append(time.perf_counter() - started)
    return Run(answered_s)


def bulk_images(client: Client, url: Url, images: int, labels: Labels) -> Run:
    """Classify images in bulk messages; if labels differ, they do so per message, since its images share them."""
    urls = [url(number) for number in range(images)]
    size = images_per_message(labels.count)
    answered_s: list[float] = []

    def ask(urls: list[str]) -> None:
        for outcome in client.classify_many(urls, labels.next_set(), images_per_message=size):
            if outcome.error is not None:
                raise outcome.error
            answered_s.append(time.perf_counter() - started)

    started = time.perf_counter()
    if labels.shared_by is None:
        ask(urls)
    else:
        with ThreadPoolExecutor(MESSAGES_AT_ONCE) as threads:
            list(threads.map(ask, [urls[first : first + size] for first in range(0, images, size)]))
    return Run(answered_s)


def worker_settings(
    valkey: RunningValkey, model: Path | str, picture_port: int, *, device: str = "cpu"
) -> dict[str, str]:
    """Return all of nameshot's environment variables for the measured worker."""
    return {
        "NAMESHOT_BROKER_URL": valkey.broker_url,
        "NAMESHOT_RESULT_BACKEND": valkey.result_backend,
        "NAMESHOT_MODEL": str(model),
        "NAMESHOT_FETCH_ALLOW": f"127.0.0.1/32:{picture_port}",
        "NAMESHOT_DEVICE": device,
        "NAMESHOT_METRICS_PORT": "0",
        # There are fewer pictures than jobs, but every job must do all of its work.
        "NAMESHOT_EMBEDDING_CACHE_BYTES": "0",
        "NAMESHOT_FETCH_COALESCE": "false",
    }
