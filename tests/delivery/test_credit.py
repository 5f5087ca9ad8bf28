"""What a worker has in hand decides from which queues it may take another message."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from producer.contract.names import Queue
from worker.delivery.credit import Outcomes, open_queues, queue_of

#: Of these, `bulk` may have 22, `bulk` and `default` together 23.
PLACES = 24


@pytest.mark.parametrize(
    ("in_hand", "open_to"),
    [
        ([], "bulk default high"),
        ([("bulk", 21)], "bulk default high"),
        ([("bulk", 22)], "default high"),
        ([("bulk", 64)], "default high"),
        ([("bulk", 64), ("bulk", 64)], "default high"),
        ([("bulk", 1)] * 22, "default high"),
        ([("bulk", 64), ("default", 1)], "high"),
        ([("bulk", 64), ("default", 1), ("high", 1)], ""),
        ([("default", 1)] * 22, "bulk default high"),
        ([("default", 1)] * 23, "high"),
        ([("default", 64)], "bulk default high"),
        ([("default", 64), ("default", 1)], "high"),
        ([("high", 64)], "bulk default high"),
        ([("high", 1)] * 24, ""),
        # A message whose images are done still occupies a thread until its answer is stored.
        ([("bulk", 0)] * 22, "default high"),
        ([("high", 0)] * 24, ""),
    ],
)
def test_a_worker_takes_from_a_queue_only_while_enough_places_are_left_for_the_others(
    in_hand: list[tuple[Queue, int]], open_to: str
) -> None:
    assert sorted(open_queues(in_hand, PLACES)) == open_to.split()


def test_no_worker_takes_more_messages_than_it_has_threads() -> None:
    for places in range(1, 70):
        in_hand: list[tuple[Queue, int]] = []
        for queue in ("bulk", "default", "high"):
            while queue in open_queues(in_hand, places):
                in_hand.append((queue, 1))
        assert len(in_hand) == places


def test_outcomes_are_counted_across_threads_until_their_message_is_done() -> None:
    outcomes = Outcomes()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(outcomes.add, ["a", "b"] * 500))
    assert (outcomes.of("a"), outcomes.of("b"), outcomes.of("c")) == (500, 500, 0)
    outcomes.forget_others(["b", "c"])
    assert (outcomes.of("a"), outcomes.of("b")) == (0, 500)


def test_an_unknown_queue_counts_as_the_default_queue() -> None:
    names = ["x.bulk", "x.high", "x.default", "nameshot.bulk", "", None]
    assert [queue_of(name, "x") for name in names] == ["bulk", "high", "default", "default", "default", "default"]
