"""Which processes ``nameshot worker --gpus … --processes N`` starts, and when all of them count as ready."""

import os
import tempfile
import time
from pathlib import Path

import pytest

from producer.errors import SettingsError
from worker.runtime.fleet import all_take_jobs, engine_and_fronts, private_folder
from worker.runtime.ready_file import FROZEN_S


def test_each_device_has_an_engine_that_sees_it_and_fronts_that_see_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    monkeypatch.setenv("NAMESHOT_READY_FILE", "ours")

    parts = {
        part.name: part
        for part in engine_and_fronts(["cuda:0", "cuda:1"], 2, tmp_path, front=["front"], engine=["engine"])
    }

    assert list(parts)[:2] == ["the engine on cuda:0", "the engine on cuda:1"]
    assert set(list(parts)[2:]) == {f"front {n} on cuda:{device}" for n in (1, 2) for device in (0, 1)}
    engine, front = parts["the engine on cuda:1"], parts["front 2 on cuda:1"]
    assert engine.environment["NAMESHOT_DEVICE"] == "cuda:1"
    assert engine.environment["CUDA_VISIBLE_DEVICES"] == "4,5"
    assert "NAMESHOT_READY_FILE" not in engine.environment
    assert front.environment["CUDA_VISIBLE_DEVICES"] == ""
    assert list(front.command) == ["front", engine.command[-1], "2"]
    assert len({part.environment.get("NAMESHOT_READY_FILE") for part in parts.values()}) == 5
    assert parts["the engine on cuda:0"].command != engine.command


def test_without_gpus_the_engine_uses_the_device_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAMESHOT_DEVICE", "cpu")

    engine, front = engine_and_fronts([""], 1, tmp_path, front=["front"], engine=["engine"])

    assert (engine.name, front.name) == ("the engine", "front 1")
    assert engine.environment["NAMESHOT_DEVICE"] == "cpu"


def test_the_launcher_is_ready_while_every_front_is(tmp_path: Path) -> None:
    specs = list(engine_and_fronts([""], 2, tmp_path, front=["front"], engine=["engine"]))
    one, other = (Path(spec.ready_file) for spec in specs if spec.ready_file)

    def freeze_other() -> None:
        os.utime(other, (0, time.time() - FROZEN_S))

    seen = []
    for change in (one.touch, other.touch, one.unlink, one.touch, freeze_other, other.touch):
        change()
        seen.append(all_take_jobs(specs))

    assert seen == [False, True, False, True, False, True]


def test_the_folder_of_the_sockets_is_private_and_is_deleted_in_the_end() -> None:
    with private_folder() as folder:
        assert folder.path.stat().st_mode & 0o777 == 0o700
        (folder.path / "engine-0").touch()

    assert not folder.path.exists()


def test_a_temporary_folder_that_cannot_hold_a_socket_is_reported_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with pytest.raises(SettingsError, match="is too long for a socket in it"), private_folder():
        pass
    assert list(long.iterdir()) == []

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(SettingsError, match="No such file or directory"), private_folder():
        pass
