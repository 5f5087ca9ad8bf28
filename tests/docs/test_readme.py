"""The README and the pages to which it links are true: tables match the code, links resolve, commands exist."""

import json
import re
from pathlib import Path

import pytest

from benchmarks.plot import latency, throughput
from benchmarks.table import in_order
from producer.demo.gallery import files_by_name
from tests.docs.tables import BENCHMARK, DOCS, PAGES, README, ROOT, USED_BY_ONE, updated

TEXT = README.read_text()


def test_the_readme_can_be_read_in_five_minutes() -> None:
    assert len(TEXT.split()) <= 1000
    assert len(TEXT.splitlines()) <= 160


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_tables_and_figures_match_the_code_and_the_measurements(page: Path) -> None:
    assert updated(page) == page.read_text(), "run: python -m tests.docs.tables"


def test_a_setting_of_one_side_is_not_used_in_the_code_of_the_other() -> None:
    for name, side in USED_BY_ONE.items():
        other = ROOT / ("worker" if side == "client" else "producer")
        naming = {file.name for file in other.rglob("*.py") if name in file.read_text()}
        assert naming <= {"settings.py"}, name


def test_the_plots_show_the_measurements() -> None:
    report = json.loads(BENCHMARK.read_text())

    assert (ROOT / "docs" / "throughput.svg").read_text() == throughput(in_order(report["rows"]))
    assert (ROOT / "docs" / "latency.svg").read_text() == latency(report["latencies"])


@pytest.mark.parametrize(
    "document",
    [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "benchmarks/README.md",
        "checkpoint/README.md",
        *(f"docs/{page.name}" for page in sorted(DOCS.glob("*.md"))),
    ],
)
def test_every_local_link_has_a_target(document: str) -> None:
    file = ROOT / document
    for name, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^):]+))?\)", file.read_text()):
        target = file.parent / name if name else file
        assert target.exists(), f"{document}: {name}"
        if anchor:
            assert anchor in anchors(target.read_text()), f"{document}: {name}#{anchor}"


def anchors(page: str) -> set[str]:
    """Return the anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_demo_pictures_of_the_readme_are_bundled() -> None:
    for name in re.findall(r"/pictures/([\w.]+\.(?:png|jpg|webp))", TEXT):
        assert name in files_by_name(), name


def test_the_makefile_targets_of_the_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", Path(ROOT / "Makefile").read_text(), flags=re.MULTILINE))

    assert set(re.findall(r"`make ([a-z]+)`", TEXT + Path(ROOT / "CONTRIBUTING.md").read_text())) <= targets
