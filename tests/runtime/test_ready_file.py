"""The ready file exists while the worker takes jobs; a file that cannot be created is reported."""

import logging
import shutil
import threading
from pathlib import Path

import pytest

from producer.errors import SettingsError
from tests.eventually import eventually
from worker.runtime.ready_file import ReadyFile


def test_the_ready_file_exists_exactly_while_the_worker_takes_jobs(tmp_path: Path) -> None:
    path, takes_jobs = tmp_path / "ready", threading.Event()
    ready = ReadyFile(str(path), takes_jobs.is_set)
    ready.prepare()
    takes_jobs.set()
    assert not path.exists()

    ready.start_updates()
    assert path.exists()
    takes_jobs.clear()
    eventually(lambda: not path.exists())
    takes_jobs.set()
    eventually(path.exists)


@pytest.mark.parametrize("path", [None, ""])
def test_without_a_path_no_ready_file_is_created(
    path: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ready = ReadyFile(path, lambda: True)

    ready.prepare()
    ready.start_updates()
    ready.remove()

    assert list(tmp_path.iterdir()) == []


def test_the_ready_file_of_a_killed_process_is_removed_when_the_next_one_starts(tmp_path: Path) -> None:
    path = tmp_path / "ready"
    path.touch()

    ReadyFile(str(path), lambda: True).prepare()

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["none/ready", "", "file/ready", "/dev/null", "x" * 300], ids=lambda path: path[:10])
def test_a_path_where_no_file_can_be_created_is_reported_in_one_sentence(path: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(SettingsError, match=r"^NAMESHOT_READY_FILE is '.*'[^\n]*; (name another|choose an)[^\n]*\.$"):
        ReadyFile(str(tmp_path / path)).prepare()


def test_a_ready_file_that_cannot_be_created_later_is_one_warning_and_is_created_once_possible(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    ready = ReadyFile(str(folder / "ready"), lambda: True)
    ready.prepare()
    shutil.rmtree(folder)
    folder.touch()

    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            ready.update()
    assert len(caplog.records) == 1
    assert "No such file" in caplog.text or "Not a directory" in caplog.text

    folder.unlink()
    folder.mkdir()
    ready.update()
    assert (folder / "ready").exists()

    shutil.rmtree(folder)
    folder.touch()
    with caplog.at_level(logging.WARNING):
        ready.remove()
    assert len(caplog.records) == 1
