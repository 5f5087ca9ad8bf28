"""What dies is started again, ever more slowly, and not for ever."""

import os
from pathlib import Path

import pytest

from producer.embedded import EmbeddedError
from producer.embedded.process import ChildProcess
from producer.embedded.supervise import MAX_DEATHS, Keeper, keep_log_short
from tests.embedded.programs import TIMEOUT_S


class Sleeper:
    """A part whose process is a real one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.starts = 0
        self.restart()

    def restart(self) -> None:
        self.starts += 1
        self.process = ChildProcess(
            "sleeper",
            ["/bin/sh", "-c", "echo last words; exec sleep 600"],
            folder=self.folder,
            log=self.folder / "sleeper.log",
            environment={"PATH": os.defpath},
        )

    def is_ready(self) -> bool:
        return self.process.last_log_line() == "last words"

    def die(self) -> None:
        while not self.is_ready():
            assert self.process.is_running()
        self.process.stop(0)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_part_that_died_is_started_again_and_both_is_said(tmp_path: Path, clock: Clock) -> None:
    part, said = Sleeper(tmp_path), list[str]()
    keeper = Keeper("the sleeper", part, said.append, clock)
    keeper.tick()
    assert said == []

    part.die()
    keeper.tick()
    assert said == ["the sleeper was killed by SIGKILL; starting it again in 1 s."]
    keeper.tick()
    assert part.starts == 1

    clock.now_s = 1.0
    keeper.tick()
    assert part.starts == 2
    while not part.is_ready():
        assert part.process.is_running()
    keeper.tick()
    assert said[1:] == ["the sleeper runs again."]
    part.process.stop(0)


def test_a_part_that_keeps_dying_is_given_up_with_its_last_words(tmp_path: Path, clock: Clock) -> None:
    part, said = Sleeper(tmp_path), list[str]()
    keeper = Keeper("the sleeper", part, said.append, clock)
    for _ in range(MAX_DEATHS):
        part.die()
        keeper.tick()
        clock.now_s += 30
        keeper.tick()
    part.die()

    with pytest.raises(EmbeddedError, match=r"for the 6th time; its last words were: last words"):
        keeper.tick()

    delays = [sentence.split(" in ")[1] for sentence in said]
    assert delays == ["1 s.", "2 s.", "4 s.", "8 s.", "16 s."]


def test_after_a_steady_minute_old_deaths_are_forgotten(tmp_path: Path, clock: Clock) -> None:
    part, said = Sleeper(tmp_path), list[str]()
    keeper = Keeper("the sleeper", part, said.append, clock)
    for _ in range(2 * MAX_DEATHS):
        part.die()
        keeper.tick()
        clock.now_s += 1
        keeper.tick()
        while not part.is_ready():
            assert part.process.is_running()
        keeper.tick()
        clock.now_s += 61
        keeper.tick()

    assert {sentence for sentence in said if "starting" in sentence} == {
        "the sleeper was killed by SIGKILL; starting it again in 1 s."
    }
    part.process.stop(0)


def test_a_part_that_cannot_start_counts_as_dead(tmp_path: Path, clock: Clock) -> None:
    part, said = Sleeper(tmp_path), list[str]()
    keeper = Keeper("the sleeper", part, said.append, clock)
    part.die()
    keeper.tick()

    def refuse() -> None:
        raise EmbeddedError("there is no bed.")

    part.restart = refuse  # type: ignore[method-assign]
    clock.now_s = 1.0
    keeper.tick()

    assert said[-1] == "the sleeper did not start (there is no bed); starting it again in 2 s."


def test_a_long_log_is_moved_aside_while_the_child_writes_on(tmp_path: Path) -> None:
    log = tmp_path / "chatter.log"
    child = ChildProcess(
        "chatter",
        ["/bin/sh", "-c", "echo first; while [ ! -e go ]; do sleep 0.02; done; echo second"],
        folder=tmp_path,
        log=log,
        environment={"PATH": os.defpath},
    )
    while child.last_log_line() != "first":
        assert child.is_running()

    keep_log_short(child, max_bytes=3)
    (tmp_path / "go").touch()

    assert child.wait(TIMEOUT_S)
    assert log.read_text() == "second\n"
    assert (tmp_path / "chatter.1.log").read_text() == "first\n"
