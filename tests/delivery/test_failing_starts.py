"""A worker that fails to start ends, for any reason, because Celery would go on and take jobs without a model."""

from pathlib import Path

import pytest

from producer import Client
from tests.acceptance.worker_process import Worker
from tests.delivery.conftest import COMMAND
from tests.valkey_server import ValkeyServer

TIMEOUT_S = 60
SECRET = "a text from outside"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"NULL_LOAD_ERROR": SECRET, "NAMESHOT_METRICS_PORT": "0"}, "cannot start: RuntimeError at "),
        ({"NAMESHOT_METRICS_HOST": "203.0.113.1"}, "cannot start: OSError at "),
    ],
)
def test_a_worker_whose_start_fails_unexpectedly_ends_and_takes_no_job(
    settings: dict[str, str], reason: str, own_valkey: ValkeyServer, client: Client, tmp_path: Path
) -> None:
    client.submit("http://example.com/owl.png", ["fox", "bear"])

    with Worker(tmp_path, {**own_valkey.settings("worker"), **settings}, COMMAND) as worker:
        assert worker.process.wait(TIMEOUT_S) != 0

    assert reason in worker.log
    assert SECRET not in worker.log
    assert "Traceback" not in worker.log
    assert client.queue_depths()["default"] == 1
    with own_valkey.connect() as broker:
        assert not broker.exists("nameshot:workers")
