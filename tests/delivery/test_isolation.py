"""Ordinary jobs side by side, suspects alone."""

import threading
from concurrent.futures import ThreadPoolExecutor

from worker.delivery.isolation import Isolation

TIMEOUT_S = 10


def test_ordinary_jobs_run_side_by_side() -> None:
    isolation = Isolation()
    meeting = threading.Barrier(3)

    def job() -> None:
        with isolation.together():
            meeting.wait(TIMEOUT_S)

    with ThreadPoolExecutor(3) as threads:
        for future in [threads.submit(job) for _ in range(3)]:
            future.result(TIMEOUT_S)


def test_a_suspect_waits_for_those_that_run_and_goes_before_those_that_come() -> None:
    isolation = Isolation()
    events: list[str] = []
    first_runs, first_may_end, suspect_waits = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with isolation.together():
            first_runs.set()
            assert first_may_end.wait(TIMEOUT_S)
            events.append("first ends")

    def suspect() -> None:
        suspect_waits.set()
        with isolation.alone():
            events.append("suspect")

    def late() -> None:
        with isolation.together():
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
        with isolation.alone():
            inside.append(number)
            others = len(inside) - 1
            inside.remove(number)
            return others

    with ThreadPoolExecutor(8) as threads:
        assert not any(threads.map(suspect, range(200)))
