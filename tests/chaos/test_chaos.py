"""A short run of the harness, with every kind of fault once."""

import pytest

from tests.chaos.faults import Kind
from tests.chaos.run import Plan, Report, run

PLAN = Plan(jobs=300, faults=len(Kind), seed=2, gap_s=1.1, longest_s=4.0, patience_s=60.0)


# In `make test`, tests/delivery causes each of these faults alone.
pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return run(PLAN, tmp_path_factory.mktemp("chaos"))


def test_every_fault_of_the_schedule_happens_and_every_job_is_accepted(report: Report) -> None:
    assert report.faults.total() == PLAN.faults
    assert report.accepted == PLAN.jobs


def test_no_accepted_job_is_lost(report: Report) -> None:
    assert not report.verdict.lost, report.lost_messages


def test_no_stored_answer_changes(report: Report) -> None:
    assert not report.verdict.changed


def test_every_ranking_is_right_and_every_failure_is_retryable(report: Report) -> None:
    assert not report.verdict.wrong


def test_the_backlog_counts_every_accepted_job_until_it_is_answered(report: Report) -> None:
    assert report.looks > 0
    assert not report.hidden


def test_clients_learn_of_every_destroyed_job_in_time_and_of_no_other(report: Report) -> None:
    assert sum(report.destroyed.values()) > 0
    assert not report.falsely_unknown
    assert not report.not_told
    assert not report.waiters_failures


def test_no_process_ends_without_a_fault_and_none_ignores_sigterm(report: Report) -> None:
    assert not report.unexpected_ends, "\n".join(map(str, report.unexpected_ends))
    assert not report.stuck_stops
