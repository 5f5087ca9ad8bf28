"""The state of a worker in ``/healthz``, ``/readyz`` and `nameshot doctor`."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from producer import Client
from tests.acceptance.origin import Origin
from tests.cli.command import Home
from tests.delivery.conftest import StartWorker
from tests.delivery.probing import OK, Probe, wait_for
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer

LABELS = ["fox", "bear"]
TIMEOUT_S = 60


def doctor(command: Home) -> dict[str, str]:
    """Return the findings of `nameshot doctor` that are broken, by subject."""
    (report,) = command.run("doctor", "--json").json_lines
    return {each["subject"]: each["text"] for each in report["findings"] if each["state"] == "broken"}


@pytest.mark.parametrize("trouble", [ValkeyServer.stop, ValkeyServer.freeze])
def test_without_its_broker_a_worker_is_healthy_but_not_ready_and_recovers(
    trouble: Callable[[ValkeyServer], None],
    start_worker: StartWorker,
    probe: Probe,
    client: Client,
    origin: Origin,
    own_valkey: ValkeyServer,
    command: Home,
) -> None:
    worker = start_worker("probed", NAMESHOT_METRICS_PORT=probe.port)
    assert probe("/readyz") == probe("/healthz") == OK

    trouble(own_valkey)
    wait_for(probe, "/readyz", (503, "the broker does not answer"), worker)
    assert probe("/healthz") == OK
    assert set(doctor(command)) == {"broker", "result backend"}
    assert probe("/healthz") == OK

    own_valkey.stop()
    own_valkey.start()
    wait_for(probe, "/readyz", OK, worker)
    assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking
    eventually(lambda: not doctor(command))


def test_while_its_device_hangs_a_worker_is_neither_ready_nor_healthy(
    start_worker: StartWorker, probe: Probe, client: Client, origin: Origin, tmp_path: Path
) -> None:
    hang = tmp_path / "hang"
    settings = {"NAMESHOT_METRICS_PORT": probe.port, "NAMESHOT_JOB_TIMEOUT": "3"}
    worker = start_worker("hanging", NULL_HANG=str(hang), **settings)
    assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking
    hang.touch()
    client.submit(origin.url("/owl.png"), LABELS)

    for path in ("/healthz", "/readyz"):
        while (answer := probe(path)) == OK:
            assert worker.process.poll() is None, worker.log
        status, reason = answer
        assert status == 503
        assert reason.startswith("the device has been busy with one batch for ")

    assert worker.process.wait(TIMEOUT_S) == os.EX_SOFTWARE


def test_the_doctor_names_a_worker_whose_device_hangs(
    start_worker: StartWorker, client: Client, origin: Origin, command: Home, tmp_path: Path
) -> None:
    hang = tmp_path / "hang"
    worker = start_worker("hanging", NULL_HANG=str(hang))
    hang.touch()
    job = client.submit(origin.url("/owl.png"), LABELS)
    while "workers" not in (found := doctor(command)):
        pass
    assert found["workers"].startswith(f"{socket.gethostname()}/{worker.process.pid}: ")
    assert "its device has been busy with one batch for " in found["workers"]

    hang.unlink()
    assert job.result(timeout=TIMEOUT_S).ranking
    eventually(lambda: not doctor(command))  # the worker records it in its lease at the next renewal
