"""The clients of a benchmark, and the times at which they send jobs."""

import itertools
import statistics
import threading
import time

import pytest

from benchmarks.load import Clients, Run, percentile, poisson_times_s
from benchmarks.peers.failure import PeerFailed


@pytest.mark.parametrize(("percent", "value"), [(50, 2), (75, 3), (95, 4), (100, 4)])
def test_a_percentile_is_the_smallest_value_that_this_share_does_not_exceed(percent: float, value: float) -> None:
    assert percentile([3, 1, 4, 2], percent) == value


def test_a_steady_rate_leaves_out_the_beginning_and_end_of_a_run() -> None:
    run = Run([10 + number / 5 for number in reversed(range(100))])

    assert run.steady_per_s == pytest.approx(5)
    assert run.per_s == pytest.approx(100 / 29.8)


def test_every_job_is_sent_once_and_all_clients_work_at_once() -> None:
    asked: list[int] = []
    together = threading.Barrier(4)  # it breaks unless four clients send at once

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


def test_a_run_ends_if_the_server_has_ended() -> None:
    never = threading.Event()

    def nobody_left() -> None:
        raise PeerFailed("it ended")

    with Clients(1) as clients, pytest.raises(PeerFailed, match="it ended"):
        clients.run(lambda _number: print(never.wait()), 1, nobody_left)
    never.set()


def test_jobs_are_sent_at_their_times_although_earlier_ones_have_no_answer() -> None:
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


def test_the_latency_of_a_job_counts_from_its_time_even_if_no_client_was_free() -> None:
    with Clients(1) as clients:
        _, latencies_s = clients.run_at(lambda _number: time.sleep(0.2), [0.0, 0.0], lambda: None)

    assert min(latencies_s) >= 0.2
    assert max(latencies_s) >= 0.4


def test_poisson_times_depend_only_on_the_seed_and_have_the_given_rate() -> None:
    times_s = poisson_times_s(10, 1_000, seed=1)

    assert times_s == poisson_times_s(10, 1_000, seed=1)
    assert times_s != poisson_times_s(10, 1_000, seed=2)
    assert times_s == sorted(times_s)
    assert times_s[-1] < 1_000
    assert len(times_s) == pytest.approx(10_000, rel=0.05)


def test_the_standard_deviation_of_the_gaps_between_poisson_times_is_their_mean() -> None:
    times_s = poisson_times_s(10, 1_000, seed=1)
    gaps_s = [later - earlier for earlier, later in itertools.pairwise(times_s)]

    assert statistics.stdev(gaps_s) == pytest.approx(statistics.mean(gaps_s), rel=0.1)
