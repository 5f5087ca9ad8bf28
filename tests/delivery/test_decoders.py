"""However a worker ends, its decoder processes end too; however they end, the worker goes on."""

import os
import re
import signal
from pathlib import Path

import pytest

from producer import Client
from tests.acceptance.origin import Origin
from tests.acceptance.worker_process import Worker
from tests.delivery.conftest import StartWorker
from tests.eventually import eventually

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
LABELS = ["fox", "bear"]
TIMEOUT_S = 60


def decoders(worker: Worker) -> list[int]:
    """Return the processes that any thread of this worker started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            if re.search(rf"^PPid:\s{worker.process.pid}$", status.read_text(), re.MULTILINE):
                found.append(int(status.parent.name))
        except OSError:  # the thread has just ended
            continue
    return found


def are_gone(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_no_decoder_outlives_its_worker(
    number: signal.Signals, start_worker: StartWorker, client: Client, origin: Origin
) -> None:
    worker = start_worker("worker", NAMESHOT_DECODER="process")
    assert client.submit(origin.url("/owl.png"), LABELS).result(timeout=TIMEOUT_S).ranking
    pids = decoders(worker)
    assert pids

    worker.stop(number)

    eventually(lambda: are_gone(pids))


def test_a_worker_replaces_an_idle_decoder_that_was_killed_and_fails_no_image(
    start_worker: StartWorker, client: Client, origin: Origin
) -> None:
    worker = start_worker("worker", NAMESHOT_DECODER="process")
    killed = decoders(worker)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)

    assert client.submit(origin.url("/owl.png"), LABELS).result(timeout=TIMEOUT_S).ranking
    assert worker.process.poll() is None
    assert not set(killed) & set(decoders(worker))


def test_a_worker_that_decodes_in_threads_starts_no_decoder_processes(
    start_worker: StartWorker, client: Client, origin: Origin
) -> None:
    worker = start_worker("worker", NAMESHOT_DECODER="thread")

    assert client.submit(origin.url("/owl.png"), LABELS).result(timeout=TIMEOUT_S).ranking
    assert decoders(worker) == []
