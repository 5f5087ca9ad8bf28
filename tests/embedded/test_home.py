"""How commands find a running `nameshot up`, and how a second one is prevented."""

import os
import signal
from pathlib import Path

import pytest

from producer.embedded.home import UpInfo, announced, data_folder, only_one, running_up
from producer.errors import EmbeddedError
from tests.processes.programs import is_running, kill, numbers_of, run_python

HOLDS_THE_FOLDER = """
import json, os, subprocess, sys, time
from pathlib import Path
from producer.embedded.home import UpInfo, announced, only_one
folder = Path(sys.argv[1])
with only_one(folder) as lock, announced(folder, UpInfo(os.getpid(), "b", "r", "nameshot", "m", "http://u", "s")):
    seconds = sys.argv[2]
    child = subprocess.Popen(["/bin/sleep", seconds], pass_fds=[lock]) if seconds != "0" else None
    print(json.dumps([os.getpid(), child.pid if child else 0]), flush=True)
    time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home"


def info(pid: int) -> UpInfo:
    return UpInfo(
        pid=pid,
        broker_url="redis://:secret@127.0.0.1:1/0",
        result_backend="redis://:secret@127.0.0.1:1/1",
        queue_prefix="nameshot",
        model="bundled",
        url="http://127.0.0.1:8000",
        file_secret="signing secret",
    )


def test_up_keeps_its_data_in_the_user_s_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))

    assert data_folder() == tmp_path / "nameshot"


def test_before_a_start_no_running_up_is_found(folder: Path) -> None:
    assert running_up(folder) is None


def test_only_its_user_finds_a_running_up(folder: Path) -> None:
    with only_one(folder), announced(folder, info(os.getpid())):
        assert running_up(folder) == info(os.getpid())
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / "up.json").stat().st_mode & 0o777 == 0o600

    assert running_up(folder) is None


def test_the_repr_of_up_s_information_contains_no_secrets() -> None:
    assert "secret" not in repr(info(1))


def test_a_second_up_is_refused_with_one_sentence(folder: Path) -> None:
    with (
        only_one(folder),
        announced(folder, info(os.getpid())),
        pytest.raises(EmbeddedError, match=rf"^`nameshot up` is already running \(process {os.getpid()}, .*\.$"),
        only_one(folder),
    ):
        pass


def test_the_file_of_a_killed_up_does_not_count_as_running(folder: Path) -> None:
    owner = run_python(HOLDS_THE_FOLDER, folder, 0)
    pid, _ = numbers_of(owner)
    found = running_up(folder)
    assert found is not None
    assert found.pid == pid

    kill(owner)

    assert (folder / "up.json").exists()
    assert running_up(folder) is None


def test_a_process_id_that_another_process_has_by_now_does_not_count_as_running(folder: Path) -> None:
    """Process ids are reused, so only the lock proves that `nameshot up` runs."""
    with only_one(folder), announced(folder, info(os.getpid())):
        left_behind = (folder / "up.json").read_text()
    (folder / "up.json").write_text(left_behind)

    assert running_up(folder) is None


def test_a_database_that_briefly_outlives_its_up_does_not_count_as_running(folder: Path) -> None:
    owner = run_python(HOLDS_THE_FOLDER, folder, 600)
    _, database = numbers_of(owner)
    kill(owner)

    assert is_running(database)
    assert running_up(folder) is None

    os.kill(database, signal.SIGKILL)


def test_a_new_up_waits_until_the_database_of_a_killed_one_has_ended(folder: Path) -> None:
    """Two servers that append to one file would damage it, so the database server holds the lock as well."""
    owner = run_python(HOLDS_THE_FOLDER, folder, 1)
    _, database = numbers_of(owner)
    kill(owner)

    with only_one(folder):
        assert not is_running(database)


def test_a_folder_that_cannot_be_written_is_reported_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")

    with (
        pytest.raises(EmbeddedError, match=r"^the data folder .* cannot be used: .*\.$"),
        only_one(tmp_path / "file" / "home"),
    ):
        pass
