"""``nameshot worker --processes 2`` from start to stop, with a real client: what a user sees of engine and fronts."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from producer import Client
from tests.acceptance.conftest import StartWorker, picture
from tests.acceptance.origin import Origin
from tests.acceptance.worker_process import Worker
from tests.valkey_server import ValkeyServer

LABELS = ["fox", "bear", "owl"]
TIMEOUT_S = 60
#: As a user starts it.
COMMAND = (str(Path(sys.executable).with_name("nameshot")), "worker", "--processes", "2")

Start = Callable[..., Worker]


@pytest.fixture
def start(start_worker: StartWorker, checkpoint: Callable[[str], Path]) -> Start:
    """A launcher with an engine and two fronts, ready; on queues of its own."""

    def start(prefix: str, **settings: str) -> Worker:
        worker = start_worker(checkpoint("clip"), COMMAND, prefix, NAMESHOT_DEVICE="cpu", **settings)
        worker.wait_until_ready()
        return worker

    return start


def client_of(valkey: ValkeyServer, prefix: str) -> Client:
    return Client(valkey.url(0, "producer", prefix), valkey.url(1, "producer", prefix), queue_prefix=prefix)


def children(launcher: Worker) -> dict[str, list[int]]:
    """Process ids by what they are: ``engine`` and ``fronts``."""
    pid = launcher.process.pid
    found: dict[str, list[int]] = {"engine": [], "fronts": []}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        command = Path(f"/proc/{child}/cmdline").read_text()
        found["engine" if "worker.engine_process" in command else "fronts"].append(int(child))
    return found


def pictures(origin: Origin, count: int) -> list[str]:
    """URLs of so many pictures, no two alike."""
    for n in range(count):
        origin.pages[f"/p{n}.png"] = ("image/png", picture("PNG", (60 + n, 80), f"hsl({n * 7 % 360}, 80%, 50%)"))
    return [origin.url(f"/p{n}.png") for n in range(count)]


def test_jobs_in_flight_when_the_engine_is_killed_are_answered_right_by_the_next(
    start: Start, valkey: ValkeyServer, origin: Origin, pipeline: Callable[[str], Any], tmp_path: Path
) -> None:
    launcher = start("killed")
    client = client_of(valkey, "killed")
    urls = pictures(origin, 60)
    jobs = [client.submit(url, LABELS) for url in urls]
    first = jobs[0].result(timeout=TIMEOUT_S)
    (engine,) = children(launcher)["engine"]
    os.kill(engine, signal.SIGKILL)

    results = [job.result(timeout=TIMEOUT_S) for job in jobs]

    assert first.ranking
    assert "the engine was killed by SIGKILL; starting it again in 1 s." in launcher.log
    for url, result in zip(urls, results, strict=True):
        file = tmp_path / "picture.png"
        file.write_bytes(origin.pages["/" + url.rpartition("/")[2]][1])
        expected = {row["label"]: row["score"] for row in pipeline("clip")(str(file), candidate_labels=LABELS)}
        assert {score.label: score.score for score in result.ranking} == pytest.approx(expected, abs=1e-5)
    assert len(children(launcher)["fronts"]) == 2
    assert launcher.stop() == 0
