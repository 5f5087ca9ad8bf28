"""Draws the report as two SVG files: jobs per second as bars, and latencies at offered loads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from benchmarks.table import label_of, name_of

STYLE = 'font-family="system-ui, sans-serif" font-size="13" fill="#333"'
WIDTH = 720
BAR, GAP, LEFT = 16, 6, 230
OURS, LIMIT, THEIRS = "#0b6e99", "#999", "#c2410c"


def throughput(rows: Sequence[Mapping[str, Any]]) -> str:
    """Draw a bar for each row, grouped by labels, with a line from the slowest to the fastest round."""
    most = max(row["spread"][1] for row in rows)
    parts: list[str] = []
    top, group = 40, None
    for row in rows:
        if (labels := label_of(row)) != group:
            group = labels
            top += 24
            parts.append(f'<text x="10" y="{top}" font-weight="bold">{escape(labels or "no labels")}</text>')
            top += 8
        colour = LIMIT if row["load"] == "limit" else OURS if row["name"] == "nameshot" else THEIRS
        low, middle, high = (_across(value, most) for value in (row["spread"][0], row["jobs_per_s"], row["spread"][1]))
        text = top + BAR - 4
        parts += [
            f'<text x="{LEFT - 8}" y="{text}" text-anchor="end">{escape(name_of(row))}</text>',
            f'<rect x="{LEFT}" y="{top}" width="{round(middle - LEFT, 1)}" height="{BAR}" fill="{colour}"/>',
            f'<line x1="{low}" y1="{top + BAR / 2}" x2="{high}" y2="{top + BAR / 2}" stroke="#000"/>',
            f'<text x="{high + 6}" y="{text}">{row["jobs_per_s"]:.2f}</text>',
        ]
        top += BAR + GAP
    return _page(WIDTH, top + 16, "jobs (or images) a second; the line is the slowest to the quickest round", parts)


def latency(rows: Sequence[Mapping[str, Any]]) -> str:
    """Draw each contender's p50, p95 and p99 at each load that it can sustain."""
    height, bottom, top = 420, 364, 48
    shares = sorted({row["share"] for row in rows})
    names = list(dict.fromkeys(row["name"] for row in rows))
    most: float = max(row["p99_ms"] for row in rows)
    width = (WIDTH - 80) / len(shares)
    step = width / (len(names) + 1)
    parts = [f'<line x1="60" y1="{bottom}" x2="{WIDTH - 20}" y2="{bottom}" stroke="#999"/>']

    def up(value: float) -> float:
        return round(bottom - value / most * (bottom - top), 1)

    for place, share in enumerate(shares):
        left = 60 + place * width
        parts.append(f'<text x="{left + width / 2}" y="{bottom + 46}" text-anchor="middle">{share:.0%}</text>')
        for row in rows:
            if row["share"] != share:
                continue
            number = names.index(row["name"]) + 1
            x = round(left + (number - 0.1) * step, 1)
            colour = OURS if row["name"] == "nameshot" else THEIRS
            parts += [
                f'<line x1="{x}" y1="{up(row["p50_ms"])}" x2="{x}" y2="{up(row["p99_ms"])}" stroke="{colour}"/>',
                *(
                    f'<circle cx="{x}" cy="{up(row[f"p{percent}_ms"])}" r="4" fill="{colour}"/>'
                    for percent in (50, 95, 99)
                ),
                f'<text x="{x}" y="{bottom + 14}" text-anchor="middle" font-size="10">{number}</text>',
            ]
    parts += [f'<text x="54" y="{up(value) + 4}" text-anchor="end">{value:.0f}</text>' for value in (0, most / 2, most)]
    legend = ", ".join(f"{number} {name}" for number, name in enumerate(names, 1))
    parts.append(f'<text x="10" y="{height + 10}" font-size="11">{escape(legend)}</text>')
    return _page(WIDTH, height + 24, "p50, p95 and p99 in ms at shares of the bare loop's rate", parts)


def _across(value: float, most: float) -> float:
    return round(LEFT + value / most * (WIDTH - LEFT - 70), 1)


def _page(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    return (
        "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {STYLE}>',
                f'<rect width="{width}" height="{height}" fill="#fff"/>',
                f'<text x="{width / 2}" y="24" text-anchor="middle">{escape(title)}</text>',
                *parts,
                "</svg>",
            ]
        )
        + "\n"
    )
