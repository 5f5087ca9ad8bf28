"""When a host's circuit opens, for how long, and how it closes again; the tests move the clock."""

from __future__ import annotations

import logging

import pytest

from worker.fetch.circuits import FIRST_PAUSE_S, HALF_WINDOW_S, MAX_PAUSE_S, MIN_BAD, Circuits, Host, Verdict

HOST: Host = ("h.example", 443)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def circuits(clock: Clock) -> Circuits:
    return Circuits(max_hosts=100, clock=clock)


def tell(circuits: Circuits, verdict: Verdict, times: int = 1, host: Host = HOST, retry_after_s: float = 0) -> None:
    for _ in range(times):
        circuits.leave(host, verdict, retry_after_s=retry_after_s)


def try_once(circuits: Circuits, verdict: Verdict, retry_after_s: float = 0) -> None:
    assert circuits.enter(HOST) == "trial"
    circuits.leave(HOST, verdict, is_trial=True, retry_after_s=retry_after_s)


def test_only_the_circuit_of_a_host_that_always_fails_opens(circuits: Circuits) -> None:
    tell(circuits, "bad", MIN_BAD - 1)
    assert circuits.enter(HOST) == "free"
    tell(circuits, "bad")
    assert circuits.enter(HOST) == "refused"
    assert circuits.is_open(HOST)
    assert circuits.enter(("h.example", 80)) == "free"
    assert circuits.enter(("other.example", 443)) == "free"


def test_a_host_s_circuit_opens_only_once_failures_are_as_many_as_successes(circuits: Circuits) -> None:
    tell(circuits, "good", 500)
    tell(circuits, "bad", 499)  # all at once, like downloads that time out together
    assert circuits.enter(HOST) == "free"
    tell(circuits, "bad")
    assert circuits.enter(HOST) == "refused"


def test_outcomes_that_say_nothing_about_the_host_change_nothing(circuits: Circuits) -> None:
    tell(circuits, "bad", MIN_BAD - 1)
    tell(circuits, "none", 1_000)
    for number in range(1_000):  # a wildcard domain that does not resolve
        tell(circuits, "none", host=(f"{number}.example", 80))
    assert circuits.enter(HOST) == "free"
    tell(circuits, "bad")
    assert circuits.enter(HOST) == "refused"


def test_old_outcomes_are_forgotten(circuits: Circuits, clock: Clock) -> None:
    tell(circuits, "good", 1_000)
    for _ in range(3):
        clock.now_s += 2 * HALF_WINDOW_S
        tell(circuits, "bad", MIN_BAD - 1)
        assert circuits.enter(HOST) == "free"
    clock.now_s += HALF_WINDOW_S
    tell(circuits, "bad")  # the failures of half a window ago still count
    assert circuits.enter(HOST) == "refused"


def test_after_the_pause_one_trial_download_begins_and_others_are_refused_until_it_ends(
    circuits: Circuits, clock: Clock
) -> None:
    tell(circuits, "bad", MIN_BAD)
    clock.now_s += FIRST_PAUSE_S - 0.1
    assert circuits.enter(HOST) == "refused"
    clock.now_s += 0.1
    assert not circuits.is_open(HOST)
    assert [circuits.enter(HOST) for _ in range(3)] == ["trial", "refused", "refused"]
    tell(circuits, "good", 100)  # downloads that began before the circuit opened do not close it
    assert circuits.is_open(HOST)
    circuits.leave(HOST, "good", is_trial=True)
    assert [circuits.enter(HOST) for _ in range(3)] == ["free"] * 3
    tell(circuits, "bad", MIN_BAD - 1)  # earlier failures no longer count
    assert circuits.enter(HOST) == "free"


def test_a_trial_that_says_nothing_about_the_host_is_followed_by_another(circuits: Circuits, clock: Clock) -> None:
    tell(circuits, "bad", MIN_BAD)
    clock.now_s += FIRST_PAUSE_S
    try_once(circuits, "none")
    try_once(circuits, "none")
    try_once(circuits, "good")
    assert circuits.enter(HOST) == "free"


def test_the_pause_doubles_up_to_a_minute_and_is_short_again_after_a_success(circuits: Circuits, clock: Clock) -> None:
    tell(circuits, "bad", MIN_BAD)
    pauses_s = []
    for _ in range(6):
        began_s = clock.now_s
        while circuits.is_open(HOST):
            clock.now_s += 1
        pauses_s.append(clock.now_s - began_s)
        try_once(circuits, "bad")
    assert pauses_s == [5, 10, 20, 40, MAX_PAUSE_S, MAX_PAUSE_S]
    clock.now_s += MAX_PAUSE_S
    try_once(circuits, "good")
    tell(circuits, "bad", MIN_BAD)
    clock.now_s += FIRST_PAUSE_S
    assert not circuits.is_open(HOST)


@pytest.mark.parametrize(("asked_s", "waited_s"), [(1, FIRST_PAUSE_S), (30, 30), (3_600, MAX_PAUSE_S)])
def test_a_host_may_ask_for_a_longer_pause_up_to_a_minute(
    asked_s: float, waited_s: float, circuits: Circuits, clock: Clock
) -> None:
    tell(circuits, "bad", 1, retry_after_s=asked_s)
    assert circuits.enter(HOST) == "free"  # one failure does not open the circuit of a host that many jobs use
    tell(circuits, "bad", MIN_BAD - 1)
    clock.now_s += waited_s - 0.1
    assert circuits.is_open(HOST)
    clock.now_s += 0.1
    assert not circuits.is_open(HOST)


def test_the_number_of_remembered_hosts_is_bounded_and_open_circuits_are_remembered_longest(clock: Clock) -> None:
    circuits = Circuits(max_hosts=3, clock=clock)
    tell(circuits, "bad", MIN_BAD)
    for number in range(1_000):
        tell(circuits, "bad", host=(f"{number}.example", 80))
    assert circuits.is_open(HOST)
    assert len(circuits._circuits) == 3
    for number in range(1_000):
        tell(circuits, "bad", MIN_BAD, host=(f"{number}.example", 80))
    assert len(circuits._circuits) == 3


def test_opening_and_closing_a_circuit_log_one_line_each(
    circuits: Circuits, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    tell(circuits, "bad", 5 * MIN_BAD)
    for _ in range(5):
        clock.now_s += MAX_PAUSE_S
        try_once(circuits, "bad")
    clock.now_s += MAX_PAUSE_S
    try_once(circuits, "good")
    tell(circuits, "bad", MIN_BAD, host=("2606:4700::1", 80))
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "WARNING",
            "host h.example:443 failed 10 downloads within 30 s: pausing its downloads for 5 s, "
            "then longer if it fails again",
        ),
        ("INFO", "host h.example:443 works again"),
        (
            "WARNING",
            "host [2606:4700::1]:80 failed 10 downloads within 30 s: pausing its downloads for 5 s, "
            "then longer if it fails again",
        ),
    ]
