"""The harness of ``make fuzz`` runs each target for two seconds, and must find planted faults."""

from pathlib import Path

import pytest

from tests.fuzz import runs
from tests.fuzz.mutations import inputs
from tests.fuzz.runs import TARGETS, fuzz, read_finding, replay

PLANTED = "tests.fuzz.planted"


@pytest.mark.parametrize("target", TARGETS)
def test_fuzzing_each_target_for_two_seconds_finds_no_failure(target: str, tmp_path: Path) -> None:
    run = fuzz(f"tests.fuzz.targets.{target}", tmp_path, seconds=2, seed=1, blind=True)

    assert [finding.report for finding in run.findings] == []
    assert run.cases > 0


@pytest.mark.parametrize(
    ("fault", "headline"),
    [
        ("raise", "ValueError: planted"),
        ("segfault", "died with SIGSEGV"),
        ("hang", "no end after 1 s"),
        ("hoard", "MemoryError"),
    ],
)
def test_each_kind_of_failure_is_a_finding_that_can_be_replayed(
    fault: str, headline: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLANTED", fault)
    monkeypatch.setattr(runs, "HANGS_AFTER_S", 1.0)
    monkeypatch.setattr(runs, "MOST_FINDINGS", 1)

    run = fuzz(PLANTED, tmp_path, seconds=20, seed=1, blind=True)

    (finding,) = run.findings
    assert finding.input.startswith(fault.encode())
    assert finding.headline.startswith(headline)
    again = replay(read_finding(finding.write(tmp_path)), tmp_path)
    assert again is not None
    assert again.strip().endswith(headline)


def test_equal_seeds_give_equal_inputs() -> None:
    def first(seed: int) -> list[bytes]:
        return [data for data, _ in zip(inputs([b"seed", b"another"], seed, 64), range(100), strict=False)]

    assert first(1) == first(1) != first(2)
    assert len(set(first(1))) > 50
