"""Draws the measured rows as a small SVG: the speed-up over one worker, with logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

WIDTH, HEIGHT, MARGIN = 560, 420, 56
COLOURS = {"single": "#0b6e99", "bulk": "#c2410c"}
STYLE = 'font-family="system-ui, sans-serif" font-size="13" fill="#333"'


def svg(rows: Sequence[Mapping[str, Any]]) -> str:
    """Draw a line for each load, and a dashed line for n times the rate of one worker."""
    most = max(row["workers"] for row in rows)
    doublings = max(1.0, math.log2(most))

    def x(workers: float) -> float:
        return round(MARGIN + math.log2(workers) / doublings * (WIDTH - 2 * MARGIN), 1)

    def y(speed_up: float) -> float:
        return round(HEIGHT - MARGIN - math.log2(speed_up) / doublings * (HEIGHT - 2 * MARGIN), 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {STYLE}>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{WIDTH / 2}" y="24" text-anchor="middle">images/s over those of one worker</text>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 14}" text-anchor="middle">workers</text>',
    ]
    for step in range(int(doublings) + 1):
        tick = 2**step
        parts += [
            f'<line x1="{x(tick)}" y1="{y(1)}" x2="{x(tick)}" y2="{y(most)}" stroke="#ddd"/>',
            f'<line x1="{x(1)}" y1="{y(tick)}" x2="{x(most)}" y2="{y(tick)}" stroke="#ddd"/>',
            f'<text x="{x(tick)}" y="{HEIGHT - 36}" text-anchor="middle">{tick}</text>',
            f'<text x="{MARGIN - 10}" y="{y(tick) + 4}" text-anchor="end">{tick}×</text>',
        ]
    parts.append(f'<line x1="{x(1)}" y1="{y(1)}" x2="{x(most)}" y2="{y(most)}" stroke="#999" stroke-dasharray="5 4"/>')
    for number, (load, colour) in enumerate(COLOURS.items()):
        points = [(x(row["workers"]), y(row["workers"] * row["efficiency"])) for row in rows if row["load"] == load]
        line = " ".join(f"{across},{up}" for across, up in points)
        legend_y = 60 + 20 * number
        parts += [
            f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>',
            *(f'<circle cx="{across}" cy="{up}" r="4" fill="{colour}"/>' for across, up in points),
            f'<circle cx="{MARGIN + 20}" cy="{legend_y - 4}" r="4" fill="{colour}"/>',
            f'<text x="{MARGIN + 32}" y="{legend_y}">{load}</text>',
        ]
    parts.append(f'<text x="{MARGIN + 20}" y="100" fill="#777">- - n times one worker</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
