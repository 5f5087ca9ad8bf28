"""A supervisor restarts a part that died, after a delay that grows with each death."""

from pathlib import Path

import pytest

from producer.errors import NameshotError
from producer.processes.keeper import Supervisor
from tests.processes.sleeper import Clock, Sleeper


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_supervisor_restarts_a_part_that_died_and_logs_its_death_and_its_return(tmp_path: Path, clock: Clock) -> None:
    part, said = Sleeper(tmp_path), list[str]()
    keeper = Supervisor("the sleeper", part, said.append, clock, is_ready=part.is_ready)
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


def test_a_part_that_ran_for_a_minute_is_restarted_with_the_shortest_delay_again(tmp_path: Path, clock: Clock) -> None:
    part, said = Sleeper(tmp_path), list[str]()
    keeper = Supervisor("the sleeper", part, said.append, clock, is_ready=part.is_ready)
    for _ in range(10):
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


def test_a_failed_start_counts_as_a_death(tmp_path: Path, clock: Clock) -> None:
    part, said = Sleeper(tmp_path), list[str]()
    keeper = Supervisor("the sleeper", part, said.append, clock, is_ready=part.is_ready)
    part.die()
    keeper.tick()

    def refuse() -> None:
        raise NameshotError("there is no bed.")

    part.restart = refuse  # type: ignore[method-assign]
    clock.now_s = 1.0
    keeper.tick()

    assert said[-1] == "the sleeper did not start (there is no bed); starting it again in 2 s."


def test_the_delay_doubles_up_to_five_seconds_and_the_supervisor_never_gives_up(tmp_path: Path, clock: Clock) -> None:
    part, said = Sleeper(tmp_path), list[str]()
    keeper = Supervisor("the sleeper", part, said.append, clock)
    for _ in range(9):
        part.die()
        keeper.tick()
        clock.now_s += 30
        keeper.tick()

    assert [sentence.split(" in ")[1] for sentence in said] == [
        *("1 s.", "2 s.", "4 s."),
        *("5 s.", "5 s.", "5 s.", "5 s.", "5 s.", "5 s."),
    ]
    part.process.stop(0)


def test_a_part_without_a_readiness_check_also_gets_the_shortest_delay_again_after_a_minute(
    tmp_path: Path, clock: Clock
) -> None:
    part, said = Sleeper(tmp_path), list[str]()
    keeper = Supervisor("the sleeper", part, said.append, clock)
    for _ in range(3):
        part.die()
        keeper.tick()
        clock.now_s += 1
        keeper.tick()
        clock.now_s += 61
        keeper.tick()

    assert said == ["the sleeper was killed by SIGKILL; starting it again in 1 s."] * 3
    part.process.stop(0)


def test_an_exception_from_on_death_ends_the_supervision(tmp_path: Path, clock: Clock) -> None:
    part, said = Sleeper(tmp_path), list[str]()

    def judge(deaths: int, what_happened: str) -> None:
        raise NameshotError(f"{deaths}: {what_happened}")

    keeper = Supervisor("the sleeper", part, said.append, clock, on_death=judge)
    part.die()

    with pytest.raises(NameshotError, match="1: was killed by SIGKILL"):
        keeper.tick()
    assert said == []
