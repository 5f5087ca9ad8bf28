"""A file that is there while jobs are taken: what it follows, and what becomes of one that cannot be made."""

import logging
import shutil
import threading
from pathlib import Path

import pytest

from producer.errors import SettingsError
from tests.eventually import eventually
from worker.runtime.ready_file import ReadyFile


def test_it_follows_what_it_is_to_tell(tmp_path: Path) -> None:
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
def test_nobody_has_to_ask_for_it(path: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ready = ReadyFile(path, lambda: True)

    ready.prepare()
    ready.start_updates()
    ready.remove()

    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_gone_before_the_next_one_is_ready(tmp_path: Path) -> None:
    path = tmp_path / "ready"
    path.touch()

    ReadyFile(str(path), lambda: True).prepare()

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["none/ready", "", "file/ready", "/dev/null", "x" * 300], ids=lambda path: path[:10])
def test_a_place_where_no_file_can_be_made_is_reported_in_one_sentence(path: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(SettingsError, match=r"^NAMESHOT_READY_FILE is '.*'[^\n]*; (name another|choose an)[^\n]*\.$"):
        ReadyFile(str(tmp_path / path)).prepare()


def test_trouble_with_it_later_on_is_one_warning_and_over_when_it_is_mended(
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
