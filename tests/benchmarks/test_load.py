"""Who asks, and when."""

import itertools
import statistics
import threading
import time

import pytest

from benchmarks.load import Clients, Run, percentile, poisson_times_s
from benchmarks.peers.failure import PeerFailed


@pytest.mark.parametrize(("percent", "value"), [(50, 2), (75, 3), (95, 4), (100, 4)])
def test_a_percentile_is_one_of_the_values_and_not_exceeded_by_that_many_percent(percent: float, value: float) -> None:
    assert percentile([3, 1, 4, 2], percent) == value


def test_a_steady_rate_leaves_out_how_a_run_begins_and_ends() -> None:
    run = Run([10 + number / 5 for number in reversed(range(100))])

    assert run.steady_per_s == pytest.approx(5)
    assert run.per_s == pytest.approx(100 / 29.8)


def test_every_job_is_asked_once_by_as_many_clients_at_once_as_there_are() -> None:
    asked: list[int] = []
    together = threading.Barrier(4)  # broken unless four ask at once

    def ask(number: int) -> None:
        together.wait(timeout=30)
        asked.append(number)

    with Clients(4) as clients:
        elapsed_s, latencies_s = clients.run(ask, 12, lambda: None)

    assert sorted(asked) == list(range(12))
    assert len(latencies_s) == 12
    assert max(latencies_s) <= elapsed_s


def test_a_failed_answer_ends_the_run() -> None:
    with Clients(2) as clients, pytest.raises(ZeroDivisionError):
        clients.run(lambda number: print(1 / (number - 3)), 8, lambda: None)


def test_a_run_ends_when_there_is_nobody_left_to_answer() -> None:
    never = threading.Event()

    def nobody_left() -> None:
        raise PeerFailed("it ended")

    with Clients(1) as clients, pytest.raises(PeerFailed, match="it ended"):
        clients.run(lambda _number: print(never.wait()), 1, nobody_left)
    never.set()


def test_jobs_are_asked_for_at_their_times_though_none_was_answered() -> None:
    asked = threading.Semaphore(0)
    answered = threading.Event()

    def ask(_number: int) -> None:
        asked.release()
        answered.wait(timeout=30)

    def answer_when_all_have_asked() -> None:
        for _ in range(3):
            asked.acquire(timeout=30)
        answered.set()

    answering = threading.Thread(target=answer_when_all_have_asked)
    answering.start()
    with Clients(3) as clients:
        elapsed_s, latencies_s = clients.run_at(ask, [0.0, 0.1, 0.2], lambda: None)
    answering.join()

    assert elapsed_s >= 0.2
    assert max(latencies_s) >= 0.2


def test_a_job_that_no_client_was_free_for_has_waited_since_it_was_due() -> None:
    with Clients(1) as clients:
        _, latencies_s = clients.run_at(lambda _number: time.sleep(0.2), [0.0, 0.0], lambda: None)

    assert min(latencies_s) >= 0.2
    assert max(latencies_s) >= 0.4


def test_poisson_s_times_are_the_same_for_the_same_seed_and_as_many_as_the_rate_says() -> None:
    times_s = poisson_times_s(10, 1_000, seed=1)

    assert times_s == poisson_times_s(10, 1_000, seed=1)
    assert times_s != poisson_times_s(10, 1_000, seed=2)
    assert times_s == sorted(times_s)
    assert times_s[-1] < 1_000
    assert len(times_s) == pytest.approx(10_000, rel=0.05)


def test_between_poisson_s_times_the_deviation_is_the_mean() -> None:
    times_s = poisson_times_s(10, 1_000, seed=1)
    gaps_s = [later - earlier for earlier, later in itertools.pairwise(times_s)]

    assert statistics.stdev(gaps_s) == pytest.approx(statistics.mean(gaps_s), rel=0.1)
