"""Ordinary stages run side by side, those of suspects alone, and both kinds by turns."""

import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager

import pytest

from producer.errors import JobFailed
from tests.eventually import eventually
from worker.concurrency.cancel_scope import Cancelled, CancelScope
from worker.concurrency.isolation import Isolation

Turn = Callable[[Isolation, CancelScope], AbstractContextManager[None]]
TIMEOUT_S = 10


def anytime() -> CancelScope:
    return CancelScope(math.inf)


def together(isolation: Isolation, scope: CancelScope) -> AbstractContextManager[None]:
    return isolation.together(scope)


def alone(isolation: Isolation, scope: CancelScope) -> AbstractContextManager[None]:
    return isolation.alone("suspect", scope)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as threads:
        yield threads


class Stage:
    """A stage that begins when its turn comes and ends when the test calls `end`."""

    def __init__(self, threads: ThreadPoolExecutor, turn: AbstractContextManager[None]) -> None:
        self.runs = threading.Event()
        self._may_end = threading.Event()
        self._future: Future[None] = threads.submit(self._run, turn)

    def _run(self, turn: AbstractContextManager[None]) -> None:
        with turn:
            self.runs.set()
            assert self._may_end.wait(TIMEOUT_S)

    def end(self) -> None:
        assert self.runs.wait(TIMEOUT_S)
        self._may_end.set()
        self._future.result(TIMEOUT_S)


def test_ordinary_stages_run_side_by_side(threads: ThreadPoolExecutor) -> None:
    isolation = Isolation()
    meeting = threading.Barrier(3)

    def stage() -> None:
        with isolation.together():
            meeting.wait(TIMEOUT_S)

    for future in [threads.submit(stage) for _ in range(3)]:
        future.result(TIMEOUT_S)


def test_once_a_suspect_waits_and_a_stage_has_ended_the_suspect_is_the_next_to_begin(
    threads: ThreadPoolExecutor,
) -> None:
    isolation = Isolation()
    first, second = (Stage(threads, isolation.together()) for _ in range(2))
    for stage in (first, second):
        assert stage.runs.wait(TIMEOUT_S)
    suspect = Stage(threads, isolation.alone("suspect", anytime()))
    eventually(lambda: isolation.has_exclusive_waiters)

    first.end()
    late = Stage(threads, isolation.together())
    eventually(lambda: isolation.waiting == 1)
    second.end()
    assert suspect.runs.wait(TIMEOUT_S)
    assert not late.runs.is_set()
    suspect.end()
    late.end()


def test_between_two_suspects_all_waiting_stages_have_a_turn(threads: ThreadPoolExecutor) -> None:
    isolation = Isolation()
    first = Stage(threads, isolation.alone("first", anytime()))
    assert first.runs.wait(TIMEOUT_S)
    second = Stage(threads, isolation.alone("second", anytime()))
    eventually(lambda: isolation.has_exclusive_waiters)
    ordinary = [Stage(threads, isolation.together()) for _ in range(3)]
    eventually(lambda: isolation.waiting == 3)

    first.end()
    for stage in ordinary:  # they run at the same time, before the second suspect
        assert stage.runs.wait(TIMEOUT_S)
    assert not second.runs.is_set()
    for stage in ordinary:
        stage.end()
    second.end()


def test_no_job_runs_beside_a_suspect_and_its_mark_exists_only_while_it_runs(threads: ThreadPoolExecutor) -> None:
    inside: list[str] = []
    marked: list[str] = []

    @contextmanager
    def mark(name: str) -> Iterator[None]:
        assert inside == []
        marked.append(name)
        yield
        assert inside == []
        marked.remove(name)

    isolation = Isolation(mark)

    def suspect(number: int) -> None:
        with isolation.alone(f"suspect {number}", anytime()):
            assert marked == [f"suspect {number}"]
            inside.append("suspect")
            assert inside == ["suspect"]
            inside.remove("suspect")

    def ordinary(_: int) -> None:
        with isolation.together():
            inside.append("ordinary")
            assert marked == []
            assert "suspect" not in inside
            inside.remove("ordinary")

    mixed = [threads.submit(suspect if number % 3 == 0 else ordinary, number) for number in range(600)]
    for future in mixed:
        future.result(TIMEOUT_S)
    assert marked == []


@pytest.mark.parametrize("turn", [alone, together])
def test_a_job_cancelled_while_it_waits_for_its_turn_stops_waiting_and_delays_no_other(
    turn: Turn, threads: ThreadPoolExecutor
) -> None:
    isolation, scope = Isolation(), anytime()

    def waiting() -> None:
        with pytest.raises(Cancelled), turn(isolation, scope):
            pytest.fail("its turn came")

    with isolation.alone("suspect", anytime()):
        cancelled = threads.submit(waiting)
        threads.submit(scope.cancel)
        cancelled.result(TIMEOUT_S)
    for free in (together, alone):
        with free(isolation, anytime()):
            pass


def test_a_job_whose_deadline_passes_while_it_waits_fails_and_delays_no_other() -> None:
    isolation = Isolation()

    with isolation.alone("suspect", anytime()):
        with pytest.raises(JobFailed, match="deadline_exceeded"), isolation.together(anytime().within(0.01)):
            pytest.fail("its turn came")
        assert isolation.waiting == 0
    with isolation.alone("suspect", anytime()):
        pass


def test_ordinary_stages_go_on_when_the_suspect_for_which_they_waited_is_cancelled(threads: ThreadPoolExecutor) -> None:
    isolation, scope = Isolation(), anytime()
    long, short = (Stage(threads, isolation.together()) for _ in range(2))
    assert long.runs.wait(TIMEOUT_S)
    assert short.runs.wait(TIMEOUT_S)

    def suspect() -> None:
        with pytest.raises(Cancelled), isolation.alone("suspect", scope):
            pytest.fail("its turn came")

    waiting = threads.submit(suspect)
    eventually(lambda: isolation.has_exclusive_waiters)
    short.end()
    held_up = Stage(threads, isolation.together())
    eventually(lambda: isolation.waiting == 1)
    scope.cancel()
    waiting.result(TIMEOUT_S)
    held_up.end()
    long.end()


def test_the_first_suspect_of_a_process_gives_ordinary_stages_a_head_start_and_later_ones_do_not(
    threads: ThreadPoolExecutor,
) -> None:
    isolation = Isolation(head_start_s=1.0)
    suspect = Stage(threads, alone(isolation, anytime()))
    for _ in range(3):  # the end of one does not keep the next from beginning
        with isolation.together(anytime()):
            assert not suspect.runs.is_set()
    suspect.end()

    with isolation.alone("the second", anytime()):
        pass


def test_a_suspect_that_is_cancelled_during_the_head_start_stops_waiting() -> None:
    isolation, scope = Isolation(head_start_s=60.0), anytime()
    scope.cancel()

    with pytest.raises(Cancelled), isolation.alone("suspect", scope):
        pass
