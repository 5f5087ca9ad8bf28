"""Which queue is served next."""

from collections import Counter
from itertools import islice, pairwise

from worker.concurrency.shares import WEIGHTS
from worker.concurrency.turns import Turns


def turns(count: int) -> list[str]:
    order = Turns(WEIGHTS)
    return [order.next()[0] for _ in range(count)]


def test_while_all_queues_hold_jobs_they_get_16_4_and_1_of_21_turns() -> None:
    assert Counter(turns(21)) == {"high": 16, "default": 4, "bulk": 1}
    assert Counter(turns(2_100)) == {queue: 100 * weight for queue, weight in WEIGHTS.items()}


def test_turns_are_spread_so_that_default_never_waits_longer_than_seven_turns() -> None:
    dealt = turns(210)
    gaps = [index for index, queue in enumerate(dealt) if queue == "default"]
    assert max(after - before for before, after in pairwise(gaps)) <= 7


def test_every_turn_tries_every_queue_after_the_first_by_weight() -> None:
    order = Turns(WEIGHTS)
    for looked in islice(iter(order.next, None), 50):
        assert sorted(looked) == ["bulk", "default", "high"]
        rest = [queue for queue in ("high", "default", "bulk") if queue != looked[0]]
        assert list(looked[1:]) == rest
