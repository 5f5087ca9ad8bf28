"""In CI, a skipped test is a failure with the reason of the skip, unless the test needs a GPU."""

import os
from collections.abc import Generator

import pytest

Report = pytest.TestReport | pytest.CollectReport

#: How the only reason begins for which a test may be skipped in CI, which has no GPU.
NEEDS_A_GPU = "needs a GPU"


def is_forbidden(report: Report) -> bool:
    """Return whether a test was skipped that must not be skipped here."""
    # Pytest reports an expected failure as skipped, too.
    if not os.environ.get("CI") or not report.skipped or hasattr(report, "wasxfail"):
        return False
    return not reason(report).startswith(NEEDS_A_GPU)


def reason(report: Report) -> str:
    """Return why the test was skipped."""
    said = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return str(said).removeprefix("Skipped: ")


def fail(report: Report) -> None:
    """Turn the skip into a failure."""
    report.longrepr = f"skipped where CI is set ({reason(report)}): .ci/run should install what it needs."
    report.outcome = "failed"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Report, Report]:
    """Turn a forbidden skip of a test or of one of its fixtures into a failure."""
    report = yield
    if is_forbidden(report):
        fail(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Report, Report]:
    """Turn a forbidden skip of a whole module into a failure."""
    report = yield
    if is_forbidden(report):
        fail(report)
    return report
