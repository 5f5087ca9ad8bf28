"""With ``celery worker -D`` and ``-f`` a worker logs to its file, and a refused start has its exit status."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from producer import Client
from tests.acceptance.origin import Origin
from tests.acceptance.worker_process import ROOT, Worker
from tests.delivery.conftest import COMMAND, NULL_APP
from tests.eventually import eventually
from tests.processes.programs import wait_until_gone
from tests.valkey_server import ValkeyServer

LABELS = ["fox", "owl"]
TIMEOUT_S = 60

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(own_valkey: ValkeyServer, origin: Origin, tmp_path: Path) -> Iterator[Run]:
    """Run a command of Celery; the workers that it leaves running, with ``.pid`` files, end with the test."""
    environment = {
        **os.environ,
        **own_valkey.settings("worker"),
        "NAMESHOT_FETCH_ALLOW": f"127.0.0.1/32:{origin.port}",
        "NAMESHOT_METRICS_PORT": "0",
    }

    def command(*arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            arguments,
            cwd=ROOT,
            env={**environment, **settings},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    yield command
    for pidfile in tmp_path.glob("*.pid"):
        os.kill(worker := int(pidfile.read_text()), signal.SIGTERM)
        wait_until_gone(worker)


def test_a_detached_worker_answers_and_logs_to_its_file(
    run: Run, client: Client, origin: Origin, tmp_path: Path
) -> None:
    log, pidfile = tmp_path / "w1.log", tmp_path / "w1.pid"
    done = run(*COMMAND, "-D", "-n", "w1@%h", "-f", str(tmp_path / "%n%I.log"), "--pidfile", str(pidfile))

    assert done.returncode == 0, done.stderr
    assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking
    eventually(lambda: "worker.jobs.tasks  job " in log.read_text(), log.read_text)
    again = run(*COMMAND, "-D", "-f", str(log), "--pidfile", str(pidfile))
    assert (again.returncode, "already exists" in again.stderr) == (73, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-Q", "other"), "-Q names 'other', which is not a queue"),
        (("-f", "/no/such/folder/log"), "--logfile /no/such/folder/log cannot be written"),
        (("--pidfile", "/no/such/folder/pid"), "--pidfile /no/such/folder/pid cannot be created"),
        (("--uid", "no-such"), "User does not exist: no-such"),
        (("--executable", "/no/such/python"), "-D cannot start /no/such/python"),
        (("--", "task.acks_late=0"), "task_acks_late cannot be changed"),
    ],
)
def test_an_impossible_detached_start_is_refused_before_the_worker_detaches(
    arguments: tuple[str, ...], said: str, run: Run
) -> None:
    done = run(*COMMAND, "-D", *arguments)

    assert done.returncode == os.EX_CONFIG
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_detached_worker_that_fails_to_start_logs_why_to_its_file(run: Run, tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = (*COMMAND[:3], "-A", "worker", "worker", "-D", "-f", str(log))
    assert run(*command, NAMESHOT_MODEL="/no/such/model").returncode == 0

    eventually(lambda: "there is no folder '/no/such/model'" in log.read_text(), log.read_text)


def test_a_detached_start_without_a_log_file_prints_a_warning(run: Run, tmp_path: Path) -> None:
    done = run(*COMMAND, "-D", "--pidfile", str(pidfile := tmp_path / "worker.pid"))

    assert done.returncode == 0
    assert "without -f (--logfile), the log lines of a worker started with -D are lost" in done.stderr
    eventually(pidfile.exists)


def test_celery_multi_starts_and_stops_workers_that_log_to_their_files(
    run: Run, client: Client, origin: Origin, tmp_path: Path
) -> None:
    multi = (sys.executable, "-m", "celery", "multi")
    files = (f"--pidfile={tmp_path}/%n.pid", f"--logfile={tmp_path}/%n%I.log")
    assert run(*multi, "start", "one", "-A", NULL_APP, *files).returncode == 0
    log = tmp_path / "one.log"

    assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking
    assert run(*multi, "stopwait", "one", "-A", NULL_APP, *files).returncode == 0
    assert "Warm shutdown" in log.read_text()


def test_a_worker_in_the_foreground_logs_to_its_file(own_valkey: ValkeyServer, tmp_path: Path) -> None:
    log = tmp_path / "own.log"
    with Worker(tmp_path, own_valkey.settings("worker"), (*COMMAND, "-f", str(log))) as worker:
        worker.wait_until_ready()

    assert "takes jobs from" in log.read_text()
    assert "takes jobs from" not in worker.log
