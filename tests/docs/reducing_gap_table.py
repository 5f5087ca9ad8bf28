"""The table of benchmarks/README.md on NAMESHOT_REDUCING_GAP, from ``benchmarks/results/reducing_gap.json``."""

import json
from pathlib import Path

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "reducing_gap.json"


def rows() -> str:
    """Return a table with a row for each size and gap."""
    lines = [
        "| JPEG | gap | CPU ms | relative to off | largest change of a score: demo's pictures | mosaics |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in json.loads(RESULTS.read_text())["rows"]:
        gap = "off" if row["reducing_gap"] is None else f"{row['reducing_gap']:g}"
        moves = row["score_moves"]
        cells = (
            f"{row['width']}x{row['height']}",
            gap,
            f"{row['cpu_ms']:.1f}",
            f"{row['of_exact']:.0%}",
            f"{moves['demo']:.3f}",
            f"{moves['mosaics']:.3f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
