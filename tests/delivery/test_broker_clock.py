"""How a worker estimates the broker's clock from replies."""

from __future__ import annotations

import time

import pytest

from worker.delivery.broker_clock import READINGS, BrokerClock
from worker.delivery.taken import elapsed_s

#: How far the broker's clock is ahead, in seconds.
AHEAD_S = 1_000.0


def told_at(seconds: float) -> tuple[bytes, bytes]:
    microseconds = round(seconds * 1e6)
    return b"%d" % (microseconds // 1_000_000), b"%d" % (microseconds % 1_000_000)


def read(clock: BrokerClock, *, ahead_s: float = AHEAD_S, took_s: float = 0.001, late_s: float = 0.0) -> None:
    """Let the clock read a reply whose round trip took ``took_s``, the way back ``late_s`` longer than the way out."""
    now_s = time.time()
    clock.read(told_at(now_s + ahead_s - (took_s + late_s) / 2), sent_s=elapsed_s() - took_s)


def test_half_of_the_round_trip_is_subtracted() -> None:
    clock = BrokerClock()
    read(clock, took_s=10.0)

    assert clock.now_s() == pytest.approx(time.time() + AHEAD_S, abs=0.05)


def test_a_late_reply_does_not_replace_the_reading_of_a_quick_one() -> None:
    clock = BrokerClock()
    read(clock)
    read(clock, took_s=10.0, late_s=10.0)

    assert clock.now_s() == pytest.approx(time.time() + AHEAD_S, abs=0.05)


def test_after_the_broker_s_clock_is_set_a_worker_follows_within_as_many_replies_as_it_keeps() -> None:
    clock = BrokerClock()
    read(clock)
    for _ in range(READINGS):
        read(clock, ahead_s=-AHEAD_S, took_s=0.002)

    assert clock.now_s() == pytest.approx(time.time() - AHEAD_S, abs=0.05)


def test_until_redis_has_replied_the_worker_uses_its_own_clock() -> None:
    assert BrokerClock().now_s() == pytest.approx(time.time(), abs=0.05)
