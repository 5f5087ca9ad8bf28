"""What a worker knows of the broker's clock."""

from __future__ import annotations

import time

import pytest

from worker.delivery.broker_clock import READINGS, BrokerClock
from worker.delivery.taken import elapsed_s

#: The broker's clock is this far ahead.
AHEAD_S = 1_000.0


def told_at(seconds: float) -> tuple[bytes, bytes]:
    microseconds = round(seconds * 1e6)
    return b"%d" % (microseconds // 1_000_000), b"%d" % (microseconds % 1_000_000)


def read(clock: BrokerClock, *, ahead_s: float = AHEAD_S, took_s: float = 0.001, late_s: float = 0.0) -> None:
    """Let the clock read a reply that took so long, of which it spent so much more on its way back than out."""
    now_s = time.time()
    clock.read(told_at(now_s + ahead_s - (took_s + late_s) / 2), sent_s=elapsed_s() - took_s)


def test_half_of_the_round_trip_is_subtracted() -> None:
    clock = BrokerClock()
    read(clock, took_s=10.0)

    assert clock.now_s() == pytest.approx(time.time() + AHEAD_S, abs=0.05)


def test_a_reply_that_is_late_does_not_displace_one_that_was_in_time() -> None:
    clock = BrokerClock()
    read(clock)
    read(clock, took_s=10.0, late_s=10.0)

    assert clock.now_s() == pytest.approx(time.time() + AHEAD_S, abs=0.05)


def test_a_broker_whose_clock_is_set_is_believed_within_as_many_replies_as_are_kept() -> None:
    clock = BrokerClock()
    read(clock)
    for _ in range(READINGS):
        read(clock, ahead_s=-AHEAD_S, took_s=0.002)

    assert clock.now_s() == pytest.approx(time.time() - AHEAD_S, abs=0.05)


def test_until_redis_has_replied_the_own_clock_counts() -> None:
    assert BrokerClock().now_s() == pytest.approx(time.time(), abs=0.05)
