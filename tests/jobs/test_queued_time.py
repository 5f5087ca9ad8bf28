"""How long a job says it waited: a number of a stranger's."""

from types import SimpleNamespace

import pytest

from producer.contract.names import SENT_AT_HEADER
from worker.jobs.queued_time import queued_ms as measured_ms

NOW_S = 1_800_000_000.0


def queued_ms(sent_at: object) -> float | None:
    return measured_ms(SimpleNamespace(headers={SENT_AT_HEADER: sent_at}), NOW_S)


def test_it_is_measured_from_the_moment_of_sending() -> None:
    assert queued_ms(NOW_S - 5) == 5_000


def test_a_clock_ahead_of_redis_makes_no_negative_time() -> None:
    assert queued_ms(NOW_S + 1_000) == 0


@pytest.mark.parametrize("sent_at", [-1e308, 1.0, -(10**19), 0, True, "now", None])
def test_a_time_that_cannot_be_is_unknown(sent_at: object) -> None:
    assert queued_ms(sent_at) is None
