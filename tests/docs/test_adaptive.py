"""What benchmarks/README.md says of the latency target is what its benchmark measured."""

from tests.docs.tables import ROOT, updated


def test_the_figures_are_what_the_benchmark_measured() -> None:
    page = ROOT / "benchmarks" / "README.md"

    assert updated(page) == page.read_text(), "run: python -m tests.docs.tables"
