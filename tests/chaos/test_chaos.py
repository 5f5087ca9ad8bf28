"""A short run of the harness: every kind of fault once, and one more."""

import pytest

from tests.chaos.run import Plan, Report, run

PLAN = Plan(jobs=300, faults=8, seed=2, gap_s=1.5, max_freeze_s=12.0, patience_s=25.0)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return run(PLAN, tmp_path_factory.mktemp("chaos"))


def test_every_fault_of_the_schedule_happens_and_every_job_is_accepted(report: Report) -> None:
    assert report.faults.total() == PLAN.faults
    assert report.accepted == PLAN.jobs


def test_no_accepted_job_is_lost(report: Report) -> None:
    assert not report.verdict.lost, report.lost_messages


def test_no_answer_changes_once_it_stands(report: Report) -> None:
    assert not report.verdict.changed


def test_every_success_has_the_ranking_of_its_own_picture_and_labels(report: Report) -> None:
    assert not report.verdict.wrong


def test_no_process_ends_that_no_fault_ended_and_none_hangs_on_sigterm(report: Report) -> None:
    assert not report.unexpected_ends
    assert not report.stuck_stops
