"""A worker and its launcher work and end as usual, whether or not their output can be written."""

import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from producer import Client
from tests.acceptance.origin import Origin
from tests.acceptance.worker_process import Worker
from tests.delivery.conftest import StartWorker
from tests.delivery.test_launcher import LAUNCHER, WORKER
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer

LABELS = ["fox", "bear"]
JOBS = 60
TIMEOUT_S = 60
#: More than the pipe can hold, and far less than the worker logs for that many jobs.
PIPE_BYTES = 4096


def printing_to(path: Path | str) -> tuple[str, ...]:
    """Return the prefix of a command whose standard output and standard error are the file."""
    return ("/bin/sh", "-c", f'exec "$0" "$@" >{path} 2>&1')


@contextmanager
def unread_pipe(folder: Path) -> Iterator[Path]:
    """A named pipe that is open for reading but from which no process reads."""
    path = folder / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        yield path
    finally:
        os.close(reader)


def assert_answers_all(client: Client, origin: Origin) -> None:
    jobs = [client.submit(origin.url(f"/owl.png?{number}"), LABELS) for number in range(JOBS)]
    for job in jobs:
        assert job.result(timeout=TIMEOUT_S).ranking


def test_a_worker_whose_log_no_process_reads_answers_its_jobs_and_ends_normally(
    start_worker: StartWorker, client: Client, origin: Origin, tmp_path: Path
) -> None:
    with unread_pipe(tmp_path) as pipe:
        worker = start_worker("unread", prefix=printing_to(pipe))
        assert_answers_all(client, origin)

        assert worker.stop() == 0
        assert not worker.is_ready


def test_a_worker_whose_log_no_process_reads_requeues_its_jobs_at_a_second_signal(
    start_worker: StartWorker, client: Client, origin: Origin, own_valkey: ValkeyServer, tmp_path: Path
) -> None:
    with unread_pipe(tmp_path) as pipe, own_valkey.connect() as broker:
        worker = start_worker("unread", prefix=printing_to(pipe))
        assert_answers_all(client, origin)
        client.submit(origin.url("/held/owl.png"), LABELS)
        eventually(lambda: client.queue_depths()["default"] == 0)

        assert worker.stop(signal.SIGQUIT) == 0
        assert client.queue_depths()["default"] == 1
        assert not broker.exists("nameshot:workers")


def test_a_launcher_whose_log_no_process_reads_stops_its_workers(
    own_valkey: ValkeyServer, client: Client, origin: Origin, tmp_path: Path
) -> None:
    settings = {
        **own_valkey.settings("worker"),
        "NAMESHOT_FETCH_ALLOW": f"127.0.0.1/32:{origin.port}",
        "NAMESHOT_METRICS_PORT": "0",
    }
    with unread_pipe(tmp_path) as pipe:
        command = (
            *printing_to(pipe),
            sys.executable,
            "-c",
            LAUNCHER,
            "",
            WORKER.format(module="tests.chaos.null_worker"),
        )
        with Worker(tmp_path, settings, command) as launcher:
            launcher.wait_until_ready()
            assert_answers_all(client, origin)

            assert launcher.stop() == 0
            assert not launcher.is_ready


@pytest.mark.parametrize("redirection", ["/dev/full 2>/dev/null", "/dev/null 2>/dev/full"])
def test_a_worker_starts_and_works_while_the_disk_of_its_output_is_full(
    redirection: str, start_worker: StartWorker, client: Client, origin: Origin
) -> None:
    start_worker("full", prefix=("/bin/sh", "-c", f'exec "$0" "$@" >{redirection}'))

    assert_answers_all(client, origin)
