"""Measures the images per second of a whole worker, from download to result, in bulk messages and as single jobs."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.first_gpu.given import Given
from benchmarks.first_gpu.notes import Notes
from benchmarks.picture_server import picture_server
from benchmarks.system import PICTURES, embedded_valkey, worker_settings
from producer import Client, Job
from producer.embedded.valkey import RunningValkey

ROOT: Final = Path(__file__).parents[2]
LABELS: Final = ["candidate label 0", "candidate label 1", "candidate label 2", "candidate label 3"]
#: The time limit for a worker that loads slowly; a worker that cannot confine its decoders ends at once.
READY_S: Final = 60.0
QUICK_READY_S: Final = 240.0
ANSWER_S: Final = 60.0
#: The number of single jobs that wait for an answer at any moment, and how many are submitted in one call.
IN_FLIGHT: Final = 1024
AT_ONCE: Final = 64


def run(given: Given, notes: Notes) -> None:
    """Measure each model with as many fronts as a machine with one GPU has cores for."""
    fronts = 1 if given.quick else max(2, min(8, (os.cpu_count() or 2) // 2))
    with picture_server(PICTURES) as port, embedded_valkey() as valkey:
        for family in given.models:
            rows: dict[str, Any] = {"fronts": fronts}
            with _worker(given, family, fronts, valkey, port) as how, _client(valkey) as client:
                rows["decoder"] = how
                list(client.classify_many([_url(port, number) for number in range(AT_ONCE)], LABELS))
                for name, measure, full_s in (("bulk", _bulk, 7.0), ("single", _single, 6.0)):
                    seconds = 3.0 if given.quick else full_s
                    with _watched() as seen:
                        answered, failed = measure(client, port, seconds)
                    rows[name] = {"images/s": answered / seen["seconds"], "failed": failed, **seen}
                    notes.figure(family, rows)
                    notes.check(f"{family}, {name}: all are answered", answered > 0 and not failed, f"{failed} failed")
            notes.line(
                f"{family}, {fronts} fronts: "
                + ", ".join(
                    f"{name} {rows[name]['images/s']:,.0f} images/s, GPU {rows[name]['gpu_percent']} % busy, "
                    f"{rows[name]['cores']:.1f} cores"
                    for name in ("bulk", "single")
                )
            )


@contextlib.contextmanager
def _worker(given: Given, family: str, fronts: int, valkey: RunningValkey, port: int) -> Iterator[str]:
    """Run ``nameshot worker --processes``; yield how it decodes: in threads only if processes cannot be confined."""
    folder = given.checkpoint(family)
    for decoder in ("process", "thread"):
        with tempfile.TemporaryDirectory() as place:
            ready = Path(place) / "ready"
            settings = {
                **worker_settings(valkey, folder, port, device=given.device),
                "NAMESHOT_DECODER": decoder,
                "NAMESHOT_READY_FILE": str(ready),
                "NAMESHOT_LOG_LEVEL": "WARNING",
                "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
            }
            command = "from producer.cli import main; main()"
            with subprocess.Popen(
                [sys.executable, "-P", "-c", command, "worker", "--processes", str(fronts)],
                env={**os.environ, **settings},
                cwd=place,
            ) as process:
                try:
                    deadline_s = time.monotonic() + (QUICK_READY_S if given.quick else READY_S)
                    while not ready.exists() and process.poll() is None and time.monotonic() < deadline_s:
                        time.sleep(0.1)
                    if ready.exists():
                        yield decoder
                        return
                finally:
                    process.terminate()
    raise RuntimeError("the worker did not become ready")


@contextlib.contextmanager
def _client(valkey: RunningValkey) -> Iterator[Client]:
    with Client(valkey.broker_url, valkey.result_backend) as client:
        yield client


def _url(port: int, number: int) -> str:
    return f"http://127.0.0.1:{port}/{number % PICTURES}.jpg"


def _urls(port: int, seconds: float) -> Iterator[str]:
    ends_s, number = time.monotonic() + seconds, 0
    while time.monotonic() < ends_s:
        yield _url(port, number)
        number += 1


def _bulk(client: Client, port: int, seconds: float) -> tuple[int, int]:
    """Return the numbers of answered and failed images."""
    outcomes = [outcome.error is None for outcome in client.classify_many(_urls(port, seconds), LABELS)]
    return sum(outcomes), len(outcomes) - sum(outcomes)


def _single(client: Client, port: int, seconds: float) -> tuple[int, int]:
    waiting = deque[Job]()
    answered = failed = 0
    urls = _urls(port, seconds)
    while True:
        batch = [(url, LABELS) for _, url in zip(range(AT_ONCE), urls, strict=False)]
        waiting += client.submit_many(batch)
        while waiting and (len(waiting) >= IN_FLIGHT or not batch):
            try:
                waiting.popleft().result(timeout=ANSWER_S)
                answered += 1
            except Exception:  # after an error of any kind the job has no answer
                failed += 1
        if not batch:
            return answered, failed


@contextlib.contextmanager
def _watched() -> Iterator[dict[str, Any]]:
    """Measure the seconds, the busy cores and the GPU's utilisation within this context."""
    seen: dict[str, Any] = {"gpu_percent": None}
    ends = threading.Event()
    percents: list[float] = []
    thread = threading.Thread(target=_watch_gpu, args=(ends, percents))
    thread.start()
    started_s, busy_s = time.monotonic(), _busy_s()
    try:
        yield seen
    finally:
        seen["seconds"] = time.monotonic() - started_s
        seen["cores"] = (_busy_s() - busy_s) / seen["seconds"]
        ends.set()
        thread.join()
        if percents:
            seen["gpu_percent"] = round(sum(percents) / len(percents))


def _watch_gpu(ends: threading.Event, percents: list[float]) -> None:
    if (tool := shutil.which("nvidia-smi")) is None:
        return
    while not ends.wait(0.5):
        with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
            said = subprocess.run(
                [tool, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--id=0"],
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            )
            percents.append(float(said.stdout))


def _busy_s() -> float:
    """Return the CPU seconds of the whole machine that were not idle."""
    user, nice, system, _idle, _waiting, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
