"""A worker as a child process of `nameshot up`: which error its owner raises if it does not start."""

import logging
import os
from pathlib import Path

import pytest

from producer.embedded.valkey import RunningValkey
from producer.embedded.worker import WorkerProcess, last_message
from producer.errors import EmbeddedError
from producer.processes.child import ChildProcess
from tests.processes.programs import TIMEOUT_S
from worker.runtime.logs import HumanFormatter, JsonFormatter


@pytest.fixture
def settings() -> dict[str, str]:
    # No Redis listens there; a worker that refuses its settings never connects.
    return {"NAMESHOT_BROKER_URL": "redis://127.0.0.1:1/0", "NAMESHOT_METRICS_PORT": "0"}


def test_a_worker_that_cannot_load_its_model_is_quoted_in_one_sentence(
    settings: dict[str, str], tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()

    with (
        WorkerProcess({**settings, "NAMESHOT_MODEL": str(empty)}, tmp_path) as worker,
        pytest.raises(EmbeddedError) as failure,
    ):
        worker.wait_until_ready()

    assert str(failure.value).startswith("the worker ended with status 78 before it was ready: ")
    assert "holds no config.json" in str(failure.value)
    assert "\n" not in str(failure.value)


def test_a_worker_that_is_killed_while_it_starts_is_noticed_at_once(settings: dict[str, str], tmp_path: Path) -> None:
    with WorkerProcess(settings, tmp_path) as worker:
        worker.process.stop(0)

        with pytest.raises(EmbeddedError, match=r"^the worker was killed by SIGKILL before it was ready\.$"):
            worker.wait_until_ready()


def test_a_worker_gets_up_s_settings_and_none_of_the_user_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAMESHOT_FETCH_HOSTS", "example.com")
    with WorkerProcess({"NAMESHOT_MODEL": "bundled"}, tmp_path) as worker:
        environment = Path(f"/proc/{worker.process.pid}/environ").read_text().split("\0")
        worker.stop(0)

    ours = {entry.partition("=")[0] for entry in environment if entry.startswith("NAMESHOT_")}
    assert ours == {"NAMESHOT_MODEL", "NAMESHOT_READY_FILE"}


@pytest.mark.parametrize("formatter", [HumanFormatter(), JsonFormatter()])
def test_the_last_message_is_the_text_of_the_last_log_line(formatter: logging.Formatter, tmp_path: Path) -> None:
    said = [("INFO", "starting"), ("CRITICAL", "no such model.")]
    records = [logging.makeLogRecord({"name": "worker", "levelname": level, "msg": text}) for level, text in said]
    child = ChildProcess(
        ["/bin/echo", "\n".join(map(formatter.format, records))],
        folder=tmp_path,
        log=tmp_path / "log",
        environment={"PATH": os.defpath},
    )
    assert child.wait(TIMEOUT_S)

    assert last_message(child) == "no such model."


def test_a_worker_py_in_the_user_s_working_folder_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery imports from the working directory first, and a web app may have its own `worker.py`."""
    (tmp_path / "worker.py").write_text("raise SystemExit('the wrong worker')")
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    home.mkdir()

    with RunningValkey(home) as valkey:
        settings = {"NAMESHOT_BROKER_URL": valkey.broker_url, "NAMESHOT_DEVICE": "abacus"}
        with WorkerProcess(settings, home) as worker, pytest.raises(EmbeddedError, match="NAMESHOT_DEVICE"):
            worker.wait_until_ready()
