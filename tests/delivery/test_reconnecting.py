"""While the broker fails or connections break, workers wait; then they go on, and keep no broken connections."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from producer import Client
from tests.acceptance.origin import Origin
from tests.acceptance.worker_process import Worker
from tests.delivery import troubles
from tests.delivery.conftest import StartWorker
from tests.delivery.probing import OK, Probe, wait_for
from tests.delivery.troubles import Trouble
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer

LABELS = ["fox", "bear"]
TIMEOUT_S = 60
TROUBLE_S = 4
RECONNECTIONS = 12
AGAIN = "this worker takes jobs again"


@troubles.each(
    # The broker is the first database, which every server has, and a worker needs no optional permission to read it.
    *(trouble for trouble in troubles.ALL if trouble not in (troubles.forbidden, troubles.too_few_databases))
)
def test_while_the_broker_fails_a_worker_waits_and_is_not_ready_and_then_goes_on_by_itself(
    trouble: Trouble,
    start_worker: StartWorker,
    origin: Origin,
    probe: Probe,
    own_valkey: ValkeyServer,
    answers: ValkeyServer,
) -> None:
    settings = {"NAMESHOT_RESULT_BACKEND": answers.url(1, "worker"), "NAMESHOT_METRICS_PORT": probe.port}
    worker = start_worker("steady", **settings)
    pid = worker.process.pid
    with Client(own_valkey.broker_url, answers.result_backend) as client:
        job = client.submit(origin.url("/held/owl.png"), LABELS)
        assert origin.asked.acquire(timeout=TIMEOUT_S)
        with trouble(own_valkey):
            eventually(lambda: probe("/readyz")[0] == 503, lambda: worker.log)
            origin.hold.set()
            time.sleep(TROUBLE_S)  # the test is about a trouble that lasts
            assert probe("/readyz")[0] == 503
            assert probe("/healthz") == OK
        wait_for(probe, "/readyz", OK, worker)

        assert job.result(timeout=TIMEOUT_S).ranking
        assert client.classify(origin.url("/car.jpg"), LABELS, timeout=TIMEOUT_S).ranking
    with own_valkey.connect() as broker:
        eventually(lambda: not broker.keys("nameshot:in-flight:*"), lambda: worker.log)
    assert (worker.process.pid, worker.process.poll()) == (pid, None)
    assert "Unrecoverable" not in worker.log
    assert "Traceback" not in worker.log


def test_soon_after_the_broker_is_back_a_worker_consumes_again_and_only_then_is_ready(
    start_worker: StartWorker, client: Client, origin: Origin, probe: Probe, own_valkey: ValkeyServer
) -> None:
    worker = start_worker("prompt", NAMESHOT_METRICS_PORT=probe.port)
    own_valkey.stop()
    time.sleep(13)  # Celery would try after 2, 6, 12 and 20 s
    own_valkey.start()
    began_s = time.monotonic()
    wait_for(probe, "/readyz", OK, worker)

    assert AGAIN in worker.log
    assert time.monotonic() - began_s < 4
    assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking


def test_a_message_wakes_an_idle_worker_even_after_its_connection_broke(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer
) -> None:
    worker = start_worker("idle")
    with own_valkey.connect() as broker:
        broker.client_kill_filter(_type="normal", user="nameshot-worker")
    eventually(lambda: AGAIN in worker.log, lambda: worker.log)
    assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking

    began_s = time.monotonic()
    for _ in range(6):
        assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking
    # A worker that no message wakes looks into its queues only once a second.
    assert time.monotonic() - began_s < 3


def test_a_worker_keeps_nothing_of_broken_connections(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer, tmp_path: Path
) -> None:
    counts = tmp_path / "counts"
    worker = start_worker("counting", app="tests.delivery.counting_worker", COUNTS=str(counts))

    def held() -> Any:
        before = counts.read_text() if counts.exists() else ""
        worker.process.send_signal(signal.SIGUSR2)
        eventually(lambda: counts.exists() and counts.read_text() != before)
        return json.loads(counts.read_text().splitlines()[-1])

    def reconnect(times: int) -> None:
        with own_valkey.connect() as broker:
            for _ in range(times):
                said = worker.log.count(AGAIN)
                broker.client_kill_filter(_type="normal", user="nameshot-worker")
                eventually(lambda said=said: worker.log.count(AGAIN) > said, lambda: worker.log)  # type: ignore[misc]
                assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking

    reconnect(2)
    before = held()
    reconnect(RECONNECTIONS)
    after = held()

    # The last jobs' messages may still refer to their channels.
    assert all(after[what] - before[what] < RECONNECTIONS / 3 for what in before), (before, after)


COMMANDS = {
    "plain celery": (sys.executable, "-m", "celery", "-A", "tests.delivery.failing_worker", "worker"),
    "python -m worker": (sys.executable, "-m", "tests.delivery.failing_worker"),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_worker_that_ends_by_an_error_has_a_failing_exit_status(
    command: tuple[str, ...], own_valkey: ValkeyServer, origin: Origin, client: Client, tmp_path: Path
) -> None:
    """Not even jobs that wait for the result backend may delay the worker's end."""
    (tmp_path / "worker").mkdir()
    fails = tmp_path / "fails"
    settings = {
        **own_valkey.settings("worker"),
        "NAMESHOT_FETCH_ALLOW": f"127.0.0.1/32:{origin.port}",
        "NAMESHOT_METRICS_PORT": "0",
        "NAMESHOT_DRAIN_TIMEOUT": "1",
        "FAILS": str(fails),
    }
    with Worker(tmp_path / "worker", settings, command) as worker:
        worker.wait_until_ready()
        client.submit(origin.url("/held/owl.png"), LABELS)
        assert origin.asked.acquire(timeout=TIMEOUT_S)
        fails.touch()
        assert worker.process.wait(TIMEOUT_S) == os.EX_SOFTWARE
        assert not worker.is_ready
    with own_valkey.connect() as broker:
        assert broker.llen("nameshot.default") == 1
        assert not broker.exists("nameshot:suspects")
