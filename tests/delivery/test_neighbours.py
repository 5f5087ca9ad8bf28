"""A plain Celery application in the same Redis database keeps its messages, whatever happens to our workers."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from producer import Client
from tests.acceptance.origin import Origin
from tests.delivery.conftest import StartWorker
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer

TIMEOUT_S = 60
#: A foreign application whose task counts its executions and waits until the test lets it end.
APPLICATION = """
import os
import redis
from celery import Celery

app = Celery("stranger", broker=os.environ["URL"])
app.conf.task_acks_late = True

@app.task(name="stranger.work")
def work():
    with redis.Redis.from_url(os.environ["URL"], socket_timeout=None) as database:
        database.incr("executions")
        database.blpop("end", 60)
"""


@pytest.fixture
def stranger(own_valkey: ValkeyServer, tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    (tmp_path / "stranger.py").write_text(APPLICATION)
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "stranger",
        "worker",
        "--pool=threads",
        "-c",
        "2",
        "-n",
        "stranger",
    ]
    process = subprocess.Popen(
        command, cwd=tmp_path, env={"URL": own_valkey.url(0)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    yield process
    process.kill()
    process.wait()


@pytest.mark.usefixtures("stranger")
def test_another_applications_job_in_flight_runs_once_while_our_workers_die_and_reclaim(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer
) -> None:
    from celery import Celery

    with own_valkey.connect() as database, Celery(broker=own_valkey.url(0), set_as_current=False) as plain:
        plain.send_task("stranger.work")
        eventually(lambda: database.exists("executions"))
        victim = start_worker("victim")
        job = client.submit(origin.url("/held/owl.png"), ["fox", "bear"])
        assert origin.asked.acquire(timeout=TIMEOUT_S)
        victim.process.kill()
        victim.process.wait()
        start_worker("heir")
        origin.hold.set()
        assert job.result(timeout=TIMEOUT_S).ranking

        assert database.hlen("unacked") == 1
        assert database.get("executions") == b"1"
        database.lpush("end", "now")
        eventually(lambda: not database.hlen("unacked"))
        assert database.get("executions") == b"1"
