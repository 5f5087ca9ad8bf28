"""The page on operations: its tables match the code and the measurement, and every text it quotes is in the code."""

import re

from tests.docs.operations_tables import PREFIX, service
from tests.docs.tables import ROOT, updated

PAGE = ROOT / "docs" / "operations.md"
SOURCES = "\n".join(file.read_text() for folder in ("producer", "worker") for file in (ROOT / folder).rglob("*.py"))


def first_cells(heading: str) -> list[str]:
    """Return the texts in backticks in the first column of the table with this header."""
    rows = PAGE.read_text().partition(f"| {heading} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


def test_the_tables_match_a_worker_s_metrics_and_the_measurement() -> None:
    assert updated(PAGE) == PAGE.read_text(), "run: python -m tests.docs.tables"


def test_a_worker_also_exports_the_library_s_metrics() -> None:
    with service() as built:
        others = {family.name for family in built.telemetry.registry.collect() if not family.name.startswith(PREFIX)}

    assert {name for name in others if not name.startswith("process_")} == {"python_info"}


def test_every_log_line_and_reason_that_the_page_quotes_is_in_the_code() -> None:
    lines = first_cells("a line with")
    reasons = re.findall(
        r"^\| .* \| `([^`]+)`(?: …)? \|$", PAGE.read_text().partition("## What")[0], flags=re.MULTILINE
    )

    assert len(lines) == 19
    assert len(reasons) == 7
    for text in (*lines, *reasons):
        assert text in SOURCES, text


def test_every_finding_that_the_page_names_is_in_the_doctor_s_code() -> None:
    source = (ROOT / "producer" / "cli" / "doctor" / "checks_redis.py").read_text()

    for subject in first_cells("finding"):
        assert f'"{subject}"' in source, subject
