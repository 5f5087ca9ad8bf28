"""`nameshot up` gives up a part that keeps dying, and keeps logs short."""

import os
from pathlib import Path

import pytest

from producer.embedded.supervise import MAX_DEATHS, give_up, keep_log_short
from producer.errors import EmbeddedError
from producer.processes.child import ChildProcess
from producer.processes.keeper import Supervisor
from tests.processes.programs import TIMEOUT_S
from tests.processes.sleeper import Clock, Sleeper


def test_a_part_that_keeps_dying_is_given_up_with_its_last_log_line(tmp_path: Path) -> None:
    part, said, clock = Sleeper(tmp_path), list[str](), Clock()
    keeper = Supervisor("the sleeper", part, said.append, clock, on_death=give_up("the sleeper", part))
    for _ in range(MAX_DEATHS):
        part.die()
        keeper.tick()
        clock.now_s += 30
        keeper.tick()
    part.die()

    with pytest.raises(EmbeddedError, match=r"for the 6th time; its last log line: last words"):
        keeper.tick()

    assert len(said) == MAX_DEATHS


def test_a_long_log_is_renamed_while_the_child_goes_on_writing(tmp_path: Path) -> None:
    log = tmp_path / "chatter.log"
    child = ChildProcess(
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
