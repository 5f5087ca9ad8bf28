"""How long a job waited, computed from a time that a foreign client may have written."""

from types import SimpleNamespace

import pytest

from producer.contract.names import SENT_AT_HEADER
from worker.jobs.queued_time import queued_ms as measured_ms

NOW_S = 1_800_000_000.0


def queued_ms(sent_at: object) -> float | None:
    return measured_ms(SimpleNamespace(headers={SENT_AT_HEADER: sent_at}), NOW_S)


def test_the_queued_time_is_measured_from_the_moment_of_sending() -> None:
    assert queued_ms(NOW_S - 5) == 5_000


def test_the_queued_time_is_not_negative_if_the_sender_s_clock_was_ahead() -> None:
    assert queued_ms(NOW_S + 1_000) == 0


@pytest.mark.parametrize("sent_at", [-1e308, 1.0, -(10**19), 0, True, "now", None])
def test_with_an_impossible_send_time_the_queued_time_is_unknown(sent_at: object) -> None:
    assert queued_ms(sent_at) is None
