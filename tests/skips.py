"""In CI no test skips itself: what it lacks is a failure, with the reason, but for a GPU."""

import os
from collections.abc import Generator

import pytest

Report = pytest.TestReport | pytest.CollectReport

#: How a reason begins that CI may skip for: it has no GPU.
NEEDS_A_GPU = "needs a GPU"


def is_forbidden(report: Report) -> bool:
    """Whether it was skipped where it must not be."""
    # An expected failure is reported as a skip, too.
    if not os.environ.get("CI") or not report.skipped or hasattr(report, "wasxfail"):
        return False
    return not reason(report).startswith(NEEDS_A_GPU)


def reason(report: Report) -> str:
    """Why it was skipped."""
    said = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return str(said).removeprefix("Skipped: ")


def fail(report: Report) -> None:
    """Make a failure of it."""
    report.longrepr = f"skipped where CI is set ({reason(report)}): .ci/run should install what it needs."
    report.outcome = "failed"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Report, Report]:
    """Of a test, or of what it is given."""
    report = yield
    if is_forbidden(report):
        fail(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Report, Report]:
    """Of a whole module."""
    report = yield
    if is_forbidden(report):
        fail(report)
    return report
