"""If the variable `CI` is set, a skipped test is a failure."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONFTEST = "from tests.skips import pytest_make_collect_report, pytest_runtest_makereport"
TESTS = {
    "in_the_test": "def test_it():\n    pytest.skip('no nginx')",
    "by_a_mark": "@pytest.mark.skipif(True, reason='no nginx')\ndef test_it():\n    pass",
    "by_what_it_is_given": "@pytest.fixture\ndef given():\n    pytest.skip('no nginx')\ndef test_it(given):\n    pass",
    "with_its_module": "pytest.importorskip('no_nginx')\ndef test_it():\n    pass",
    "with_its_module_by_hand": "pytest.skip('no nginx', allow_module_level=True)",
}
GPU = "@pytest.mark.skipif(True, reason='needs a GPU: --device cuda:0')\ndef test_it():\n    pass"
EXPECTED_TO_FAIL = "@pytest.mark.xfail(reason='known')\ndef test_it():\n    assert False"


def outcome(folder: Path, tests: dict[str, str], *options: str, ci: str | None) -> "subprocess.CompletedProcess[str]":
    """Run pytest on these tests, each in a module of its own, and return how it ended."""
    (folder / "conftest.py").write_text(CONFTEST)
    for name, test in tests.items():
        (folder / f"test_{name}.py").write_text(f"import pytest\n{test}\n")
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTEST_ADDOPTS")}
    command = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    return subprocess.run(
        [*command, f"--rootdir={folder}", *options, str(folder)],
        env={**environment, "PYTHONPATH": str(ROOT), **({} if ci is None else {"CI": ci})},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("options", [(), ("--numprocesses=1",)], ids=["here", "in a process of xdist"])
def test_a_skip_in_ci_is_a_failure_with_the_reason_of_the_skip(options: tuple[str, ...], tmp_path: Path) -> None:
    done = outcome(tmp_path, TESTS, *options, ci="true")

    assert done.returncode != 0
    for name in TESTS:
        assert re.search(f"^(ERROR|FAILED) .*test_{name}.py", done.stdout, re.MULTILINE), done.stdout
    assert len(re.findall(r"^E? *skipped where CI is set \(.*no.nginx.*\)", done.stdout, re.MULTILINE)) == len(TESTS)
    assert not re.search("[0-9] skipped", done.stdout)


def test_a_skip_outside_ci_stays_a_skip(tmp_path: Path) -> None:
    done = outcome(tmp_path, TESTS, ci=None)

    assert f"{len(TESTS)} skipped" in done.stdout
    assert not re.search("failed|error", done.stdout)


def test_in_ci_a_test_that_needs_a_gpu_may_be_skipped_and_an_expected_failure_is_allowed(tmp_path: Path) -> None:
    done = outcome(tmp_path, {"gpu": GPU, "known": EXPECTED_TO_FAIL}, ci="true")

    assert done.returncode == 0, done.stdout
    assert "1 skipped, 1 xfailed" in done.stdout
