"""The table of benchmarks/README.md on decoder processes, from ``benchmarks/results/decoder_isolation.json``."""

import json
from pathlib import Path

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "decoder_isolation.json"


def rows() -> str:
    """Return a table with a row for each model and size."""
    report = json.loads(RESULTS.read_text())
    lines = [
        "| model, JPEG | CPU ms per image: thread | process | images/s: thread | process | relative to thread |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, case in report["cases"].items():
        thread, process = (case["median"][mode] for mode in ("thread", "process"))
        cells = (
            name,
            f"{thread['cpu_ms_per_image']:.1f}",
            f"{process['cpu_ms_per_image']:.1f}",
            f"{thread['images_per_s']:.1f}",
            f"{process['images_per_s']:.1f}",
            f"{process['images_per_s'] / thread['images_per_s']:.0%}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    machine = report["machine"]
    said = f"{machine['cores']} cores of {machine['cpu']}, load average {machine['load_average_before'][0]:.1f} before."
    return "\n".join(lines) + f"\n\nMedians; {said}"
