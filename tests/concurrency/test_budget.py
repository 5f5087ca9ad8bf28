"""A `Budget` gives shares in order, and only to jobs that still wait."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from functools import partial

import pytest

from producer.contract.names import Queue
from producer.errors import JobFailed
from tests.eventually import eventually
from worker.concurrency.budget import Budget
from worker.concurrency.cancel_scope import Cancelled, CancelScope
from worker.concurrency.shares import Limits, of_decoders, of_places

#: Far longer than any wait in these tests.
LONG_S = 60.0


def long() -> CancelScope:
    return CancelScope(time.monotonic() + LONG_S)


def test_a_job_waits_for_a_share_until_its_deadline_or_cancellation() -> None:
    scope = long()
    budget = Budget(10, "no room.")

    with budget.reserve(8, scope):
        with pytest.raises(JobFailed, match="no room"), budget.reserve(3, scope.within(0.01)):
            pass
        timer = threading.Timer(0.1, scope.cancel)
        timer.start()
        with pytest.raises(Cancelled), budget.reserve(3, scope):
            pass
        timer.join()
    with budget.reserve(100, CancelScope(time.monotonic() + LONG_S)):
        pass


def waiting(budget: Budget) -> int:
    return budget.waiting


def asked(
    threads: ThreadPoolExecutor, budget: Budget, share: int, got: Callable[[], object], queue: Queue = "default"
) -> None:
    """Request a share in another thread, and return once that thread waits."""
    before = waiting(budget)

    def hold() -> None:
        with budget.reserve(share, long(), queue):
            got()

    threads.submit(hold)
    eventually(lambda: waiting(budget) > before)


def test_a_large_share_is_given_before_small_ones_that_were_requested_later() -> None:
    budget, order = Budget(10, "no room."), list[str]()
    with ThreadPoolExecutor(3) as threads, ExitStack() as held:
        held.enter_context(budget.reserve(4, long()))
        asked(threads, budget, 10, lambda: order.append("large"))
        asked(threads, budget, 1, lambda: order.append("small"))
        held.close()
    assert order == ["large", "small"]


def test_after_a_job_stops_waiting_the_next_one_gets_its_share() -> None:
    budget, got = Budget(10, "no room."), threading.Event()
    gives_up = long()
    with ThreadPoolExecutor(2) as threads, budget.reserve(4, long()):

        def large() -> None:
            with pytest.raises(Cancelled), budget.reserve(10, gives_up):
                pass

        first = threads.submit(large)
        eventually(lambda: waiting(budget) == 1)
        asked(threads, budget, 6, got.set)
        gives_up.cancel()
        assert got.wait(LONG_S)
        first.result()


def test_no_share_is_lost_if_a_job_stops_waiting_just_as_it_gets_one() -> None:
    budget = Budget(2, "no room.")

    def hurried(number: int) -> None:
        scope: AbstractContextManager[None] = budget.reserve(1, CancelScope(time.monotonic() + number % 5 / 5_000))
        try:
            with scope:
                time.sleep(0.0002)
        except JobFailed:
            pass

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(hurried, range(4_000)))
    with budget.reserve(2, CancelScope(time.monotonic() + 0.1)):
        assert waiting(budget) == 0


def test_while_jobs_of_all_queues_wait_the_queues_are_served_by_weight() -> None:
    budget, order = Budget(1, "no room."), list[Queue]()
    ranks: list[Queue] = ["bulk", "default", "high"]
    with ThreadPoolExecutor(63) as threads, ExitStack() as held:
        held.enter_context(budget.reserve(1, long()))
        for queue in [rank for rank in ranks for _ in range(21)]:
            asked(threads, budget, 1, partial(order.append, queue), queue)
        held.close()
    assert [order[:21].count(rank) for rank in ranks] == [1, 4, 16]
    assert sorted(order) == sorted(ranks * 21)


def test_reserved_shares_go_to_more_important_queues_although_others_wait() -> None:
    budget, got = Budget(Limits(bulk=2, default=3, high=4), "no room."), list[str]()
    with ThreadPoolExecutor(3) as threads, ExitStack() as held:
        for _ in range(2):
            held.enter_context(budget.reserve(1, long(), "bulk"))
        asked(threads, budget, 1, partial(got.append, "bulk"), "bulk")
        held.enter_context(budget.reserve(1, long().within(1), "default"))
        asked(threads, budget, 1, partial(got.append, "default"), "default")
        held.enter_context(budget.reserve(1, long().within(1), "high"))
        asked(threads, budget, 1, partial(got.append, "high"), "high")
        assert not got
        held.close()
    assert sorted(got) == ["bulk", "default", "high"]


def test_a_large_share_of_a_less_important_queue_does_not_starve() -> None:
    budget, got = Budget(Limits(bulk=10, default=10, high=10), "no room."), threading.Event()
    with ThreadPoolExecutor(5) as threads:

        def small() -> None:
            while not got.is_set():
                with budget.reserve(4, long(), "high"):
                    time.sleep(0.0005)

        small_ones = [threads.submit(small) for _ in range(4)]
        threads.submit(lambda: hold(budget, 10, "bulk", got.set))
        assert got.wait(LONG_S)
        for one in small_ones:
            one.result()


def hold(budget: Budget, share: int, queue: Queue, got: Callable[[], object]) -> None:
    with budget.reserve(share, long(), queue):
        got()


def test_every_queue_has_places_and_more_important_queues_have_no_fewer() -> None:
    for places in range(1, 300):
        limits = of_places(places)
        assert 1 <= limits.bulk <= limits.default <= limits.high == places
        assert limits.bulk >= places * 3 / 4 or places < 4
        assert (limits.bulk < limits.high) == (places >= 4)
        assert (limits.bulk < limits.default < limits.high) == (places >= 8)
        decoders = of_decoders(places)
        assert (decoders.bulk, decoders.default, decoders.high) == (places, places, places + 1)
