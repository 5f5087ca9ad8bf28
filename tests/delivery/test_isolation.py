"""Ordinary jobs side by side, suspects alone."""

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import pytest

from worker.cancel_scope import Cancelled, CancelScope
from worker.delivery.isolation import Isolation

Turn = Callable[[Isolation, CancelScope], AbstractContextManager[None]]
TIMEOUT_S = 10
ANYTIME = CancelScope(math.inf)


def test_ordinary_jobs_run_side_by_side() -> None:
    isolation = Isolation()
    meeting = threading.Barrier(3)

    def job() -> None:
        with isolation.together(ANYTIME):
            meeting.wait(TIMEOUT_S)

    with ThreadPoolExecutor(3) as threads:
        for future in [threads.submit(job) for _ in range(3)]:
            future.result(TIMEOUT_S)


def test_a_suspect_waits_for_those_that_run_and_goes_before_those_that_come() -> None:
    isolation = Isolation()
    events: list[str] = []
    first_runs, first_may_end, suspect_waits = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with isolation.together(ANYTIME):
            first_runs.set()
            assert first_may_end.wait(TIMEOUT_S)
            events.append("first ends")

    def suspect() -> None:
        suspect_waits.set()
        with isolation.alone(ANYTIME):
            events.append("suspect")

    def late() -> None:
        with isolation.together(ANYTIME):
            events.append("late")

    with ThreadPoolExecutor(3) as threads:
        running = [threads.submit(first)]
        assert first_runs.wait(TIMEOUT_S)
        running.append(threads.submit(suspect))
        assert suspect_waits.wait(TIMEOUT_S)
        while not isolation.somebody_waits_to_be_alone:
            threading.Event().wait(0.001)
        running.append(threads.submit(late))
        first_may_end.set()
        for future in running:
            future.result(TIMEOUT_S)

    assert events == ["first ends", "suspect", "late"]


def test_two_suspects_never_meet() -> None:
    isolation = Isolation()
    inside: list[int] = []

    def suspect(number: int) -> int:
        with isolation.alone(ANYTIME):
            inside.append(number)
            others = len(inside) - 1
            inside.remove(number)
            return others

    with ThreadPoolExecutor(8) as threads:
        assert not any(threads.map(suspect, range(200)))


@pytest.mark.parametrize("turn", [Isolation.alone, Isolation.together])
def test_a_job_cancelled_while_it_waits_for_its_turn_waits_no_longer_and_holds_nobody_back(turn: Turn) -> None:
    isolation, scope = Isolation(), CancelScope(math.inf)

    def waiting() -> None:
        with pytest.raises(Cancelled), turn(isolation, scope):
            pytest.fail("its turn came")

    with ThreadPoolExecutor(2) as threads:
        with isolation.alone(ANYTIME):
            cancelled = threads.submit(waiting)
            threads.submit(scope.cancel)
            cancelled.result(TIMEOUT_S)
        for free in (isolation.together, isolation.alone):
            with free(ANYTIME):
                pass


def test_ordinary_jobs_go_on_when_the_suspect_that_they_waited_for_is_cancelled() -> None:
    isolation, scope = Isolation(), CancelScope(math.inf)
    go_on = threading.Event()

    def suspect() -> None:
        with pytest.raises(Cancelled), isolation.alone(scope):
            pytest.fail("its turn came")

    def ordinary() -> None:
        with isolation.together(ANYTIME):
            go_on.set()

    with ThreadPoolExecutor(2) as threads, isolation.together(ANYTIME):
        waiting = threads.submit(suspect)
        while not isolation.somebody_waits_to_be_alone:
            threading.Event().wait(0.001)
        threads.submit(ordinary)
        scope.cancel()
        waiting.result(TIMEOUT_S)
        assert go_on.wait(TIMEOUT_S)
