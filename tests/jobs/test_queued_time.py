"""How long a job says it waited: a number of a stranger's."""

import time
from types import SimpleNamespace

import pytest

from producer.contract.names import SENT_AT_HEADER
from worker.jobs.tasks import _queued_ms


def queued_ms(sent_at: object) -> float | None:
    return _queued_ms(SimpleNamespace(headers={SENT_AT_HEADER: sent_at}))


def test_it_is_measured_from_the_moment_of_sending() -> None:
    assert 5_000 <= (queued_ms(time.time() - 5) or 0) < 60_000


def test_a_clock_ahead_of_ours_makes_no_negative_time() -> None:
    assert queued_ms(time.time() + 1_000) == 0


@pytest.mark.parametrize("sent_at", [-1e308, 1.0, -(10**19), 0, True, "now", None])
def test_a_time_that_cannot_be_is_unknown(sent_at: object) -> None:
    assert queued_ms(sent_at) is None
