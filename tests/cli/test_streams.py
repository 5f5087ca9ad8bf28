"""If standard streams are closed or full, a command prints what it can and exits with a status; no id is lost."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cli.command import NAMESHOT, Home
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer

SUBMIT = "submit http://example.com/a.png http://example.com/b.png -l fox"
TIMEOUT_S = 60


def run(home: Home, command: str, redirection: str) -> "subprocess.CompletedProcess[str]":
    """Run a command in a shell."""
    return subprocess.run(
        ["/bin/bash", "-c", f"{NAMESHOT} {command} {redirection}"],
        env=home.environment,
        cwd=home.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


@pytest.mark.parametrize(("redirection", "why"), [(">&-", "it is closed"), (">/dev/full", "No space left on device")])
@pytest.mark.parametrize("command", ["--version", "--help", "doctor --json", "doctor", "status an-id"])
def test_output_that_cannot_be_written_is_reported_in_one_sentence(
    command: str, redirection: str, why: str, with_valkey: Home
) -> None:
    done = run(with_valkey, command, redirection)

    assert (done.returncode, done.stderr) == (1, f"nameshot: standard output cannot be written: {why}.\n")


@pytest.mark.parametrize("options", ["", "--json"])
@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"])
def test_if_ids_cannot_be_written_the_error_names_the_submitted_jobs(
    redirection: str, options: str, with_valkey: Home
) -> None:
    done = run(with_valkey, f"{SUBMIT} {options}", redirection)

    assert done.returncode == 1
    head, ids = done.stderr.rstrip(".\n").split("; these jobs are queued all the same: ")
    assert head.startswith("nameshot: standard output cannot be written: ")
    assert [run(with_valkey, f"status {job_id}", "").stdout for job_id in ids.split()] == ["queued\n"] * 2


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_without_standard_error_a_command_still_has_its_output_and_exit_status(
    redirection: str, with_valkey: Home
) -> None:
    submitted, refused = run(with_valkey, SUBMIT, redirection), run(with_valkey, "no-such-command", redirection)

    assert (submitted.returncode, len(submitted.stdout.split())) == (0, 2)
    assert (refused.returncode, refused.stdout) == (2, "")


def test_without_standard_input_a_list_from_it_is_refused_in_one_sentence(with_valkey: Home) -> None:
    done = run(with_valkey, "bulk - -l fox", "<&-")

    assert (done.returncode, done.stdout) == (1, "")
    assert "nameshot: standard input cannot be read: it is closed.\n" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("redirection", ["2>&-", ">&- 2>&- <&-"])
def test_a_worker_starts_without_standard_streams(redirection: str, valkey: ValkeyServer, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    own = {"NAMESHOT_MODEL": "bundled", "NAMESHOT_METRICS_PORT": "0", "NAMESHOT_READY_FILE": str(ready)}
    home = Home.make(tmp_path, **valkey.settings("worker"), **own)
    worker = subprocess.Popen(
        ["/bin/bash", "-c", f"exec {NAMESHOT} worker {redirection}"],
        env=home.environment,
        cwd=home.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: ready.exists() or worker.poll() is not None)
        assert worker.poll() is None
    finally:
        worker.send_signal(signal.SIGTERM)
    assert worker.wait(TIMEOUT_S) == os.EX_OK
