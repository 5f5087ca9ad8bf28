"""If commands and programs cannot reach their `nameshot up`, they say what to do."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import ConnectionError as NoConnection

from producer.broker.failures import unavailable
from producer.broker.urls import endpoint
from producer.demo.gallery import FOLDER
from producer.embedded.home import UpInfo, announced, only_one
from producer.embedded.kept import Kept
from tests.cli.command import Home

VARIABLE = "NAMESHOT_BROKER_URL"
ENV = 'run eval "$(nameshot env)" in this shell first.'
STOPPED = "`nameshot up` is not running, so start it in another terminal"
LOADING = "`nameshot up` is still loading or about to stop, so try again in a moment"


def folder_of(user: Home) -> Path:
    return user.folder / "data" / "nameshot"


@contextmanager
def running(folder: Path) -> Iterator[None]:
    info = UpInfo(os.getpid(), "redis://127.0.0.1:1/0", "redis://127.0.0.1:1/1", "nameshot", "m", "http://u", "s")
    with only_one(folder), announced(folder, info):
        yield


@pytest.fixture
def evaluated(home: Home) -> Home:
    """A user whose shell has the settings of a `nameshot up` that has stopped, with a port that no process uses."""
    folder = folder_of(home)
    folder.mkdir(parents=True)
    Kept.read(folder).write(folder, 1)
    urls = Kept.read(folder).urls
    assert urls is not None
    return home.with_settings(NAMESHOT_BROKER_URL=urls[0], NAMESHOT_RESULT_BACKEND=urls[1])


def test_a_program_without_settings_is_pointed_to_nameshot_env_only_while_up_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    default, other = (endpoint(f"redis://{host}/0", VARIABLE) for host in ("localhost:6379", "localhost:1"))
    refused = NoConnection("Connection refused")
    folder = tmp_path / "nameshot"

    assert "nameshot env" not in unavailable(refused, default)
    with running(folder):
        assert unavailable(refused, default).endswith(f"For the Redis of the running `nameshot up`, {ENV}")
        assert "nameshot env" not in unavailable(refused, other)
        monkeypatch.setenv(VARIABLE, default.url)
        assert "nameshot env" not in unavailable(refused, default)


def test_a_shell_with_the_settings_of_a_stopped_up_is_told_to_start_it(evaluated: Home) -> None:
    picture = FOLDER / "owl.png"

    assert f"; {STOPPED}, or give a URL." in evaluated.run("classify", picture, "-l", "owl").sentence
    assert evaluated.run("status", "x").sentence.endswith(f" {STOPPED}.")
    assert "`nameshot up` is not running, and commands would use it" in evaluated.run("doctor").out
    assert evaluated.run("env").sentence == f"{STOPPED}."


def test_while_up_is_loading_each_command_says_so(evaluated: Home, home: Home) -> None:
    picture = FOLDER / "owl.png"

    with only_one(folder_of(home)):
        for user in (evaluated, home):
            assert f"; {LOADING}, or give a URL." in user.run("classify", picture, "-l", "owl").sentence
            assert user.run("env").sentence == f"{LOADING}."
        assert evaluated.run("status", "x").sentence.endswith(f" {LOADING}.")
        assert "`nameshot up` is still loading or about to stop, and commands would" in evaluated.run("doctor").out


def test_the_help_of_up_says_which_programs_need_nameshot_env(home: Home) -> None:
    words = " ".join(home.run("up", "--help").out.split())

    assert 'your programs and `nameshot worker` find it in a shell in which you run eval "$(nameshot env)"' in words
