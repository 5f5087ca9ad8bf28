"""What ``make audit`` prints for pip-audit's results."""

import sys
from pathlib import Path

import pytest

from tests.dependencies.audit import main, verdict

SOUND = {"name": "urllib3", "version": "2.8.0", "vulns": []}
SKIPPED = {"name": "torch", "skip_reason": "Dependency not found on PyPI and could not be audited: torch (2.13.0)"}
VULNERABLE = {
    "name": "pillow",
    "version": "12.1",
    "vulns": [{"id": "CVE-2026-40192", "fix_versions": ["12.2"], "aliases": [], "description": "A bomb."}],
}


def test_a_known_vulnerability_is_named_and_the_audit_fails() -> None:
    assert verdict([SOUND, VULNERABLE]) == (
        ["pillow 12.1: CVE-2026-40192, fixed in 12.2", "Known vulnerabilities: 1; pinned versions audited: 2."],
        1,
    )


def test_versions_that_were_not_audited_are_named() -> None:
    assert verdict([SOUND, SKIPPED]) == (
        [
            "Known vulnerabilities: 0; pinned versions audited: 1.",
            "Not audited, as the index does not know them: torch.",
        ],
        0,
    )


def test_an_index_without_advisories_counts_as_nothing_audited() -> None:
    lines, code = verdict([SKIPPED])

    assert code == 0
    assert lines[0].startswith("Nothing was audited")


def test_without_a_network_the_audit_says_so_and_does_not_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unreachable = tmp_path / "pip-audit"
    unreachable.write_text(
        f"#!{sys.executable}\nimport urllib.request\nurllib.request.urlopen('http://127.0.0.1:1/')\n"
    )
    unreachable.chmod(0o700)

    assert main(str(unreachable)) == 0
    said = capsys.readouterr().out
    assert said.startswith("Nothing was audited: pip-audit had no answer (urllib.error.URLError")
