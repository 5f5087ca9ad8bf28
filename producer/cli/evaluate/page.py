"""Write one HTML page about an evaluation, with plots; the page needs no script, no other file and no network."""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path
from typing import Final

from producer.cli.evaluate.measures import TOP, Evaluation, Judged, percent
from producer.cli.output import counted

#: With more labels than this, a table of all pairs is unreadable, so the page lists only the most frequent mistakes.
MOST_LABELS_OF_A_TABLE: Final = 30
MOST_MISTAKES: Final = 30
MOST_PLACES: Final = 10
THUMBNAIL_PIXELS: Final = 160

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8886; --bar: #3b82f6; --ink: light-dark(#111, #eee); }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; } figure { margin: 0; overflow-x: auto; }
.numbers { display: flex; flex-wrap: wrap; gap: 2rem; } .numbers b { display: block; font-size: 2rem; }
.worst { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1rem; padding: 0; }
.worst li { list-style: none; overflow-wrap: anywhere; font-size: .9rem; }
.worst img { display: block; max-width: 100%; }
svg { width: 100%; } td svg { width: 120px; }
svg text { fill: currentColor; font-size: 12px; } .bar { fill: var(--bar); }
"""


def page(evaluation: Evaluation, title: str) -> str:
    """Return the page as one string of HTML."""
    count = len(evaluation.judged)
    failed = evaluation.failed.total()
    parts = [
        f"<h1>{escape(title)}</h1>",
        '<div class="numbers">',
        f"<div><b>{percent(evaluation.top(1))}</b>top-1 accuracy</div>",
        f"<div><b>{percent(evaluation.top(TOP))}</b>top-{TOP} accuracy</div>",
        f"<div><b>{count:,}</b>{'picture' if count == 1 else 'pictures'}, "
        f"{counted(len(evaluation.labels), 'label')}</div>",
        f"<div><b>{failed:,}</b>failed ({escape(evaluation.failed_by_code)})</div>" if failed else "",
        "</div>",
        "<h2>Top-k accuracy, by k</h2>",
        _places(evaluation),
        "<h2>By label</h2>",
        _by_label(evaluation),
        "<h2>Confusion: the label ranked first</h2>",
        _confusion(evaluation),
        "<h2>The most confident mistakes</h2>",
        _worst(evaluation),
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    body = "".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n'
    )


def _places(evaluation: Evaluation) -> str:
    """Draw the share of pictures whose own label is among the first 1, 2, 3… labels."""
    shares = [evaluation.top(places) or 0.0 for places in range(1, min(MOST_PLACES, len(evaluation.labels)) + 1)]
    bars = "".join(
        f'<rect x="{60 * place + 30}" y="{170 - 150 * share:.1f}" width="40" height="{150 * share:.1f}" class="bar"/>'
        f'<text x="{60 * place + 50}" y="{164 - 150 * share:.1f}" text-anchor="middle">{share:.0%}</text>'
        f'<text x="{60 * place + 50}" y="188" text-anchor="middle">{place + 1}</text>'
        for place, share in enumerate(shares)
    )
    width = 60 * len(shares) + 40
    size = f'viewBox="0 0 {width} 200" style="max-width: {width}px"'
    label = "Share of the pictures whose own label is among the first k labels, by k"
    return f'<figure><svg {size} role="img" aria-label="{label}">{bars}</svg></figure>'


def _by_label(evaluation: Evaluation) -> str:
    rows = "".join(
        f"<tr><td>{escape(each.label)}</td><td>{each.pictures:,}</td><td>{percent(each.recall)}</td>"
        f"<td>{percent(each.precision)}</td><td>{_bar(each.recall)}</td></tr>"
        for each in sorted(evaluation.by_label(), key=lambda each: (each.recall is None, each.recall or 0.0))
    )
    head = "<tr><th>label</th><th>pictures</th><th>recall</th><th>precision</th><th></th></tr>"
    return f"<figure><table>{head}{rows}</table></figure>"


def _bar(share: float | None) -> str:
    width = 120 * (share or 0.0)
    return f'<svg width="120" height="12" aria-hidden="true"><rect width="{width:.1f}" height="12" class="bar"/></svg>'


def _confusion(evaluation: Evaluation) -> str:
    counts = evaluation.confusion()
    if len(evaluation.labels) > MOST_LABELS_OF_A_TABLE:
        mistakes = [(own, first, count) for (own, first), count in counts.most_common() if own != first]
        rows = "".join(
            f"<tr><td>{escape(own)}</td><td>{escape(first)}</td><td>{count:,}</td></tr>"
            for own, first, count in mistakes[:MOST_MISTAKES]
        )
        return f"<figure><table><tr><th>label</th><th>ranked first</th><th>pictures</th></tr>{rows}</table></figure>"
    pictures = {each.label: each.pictures for each in evaluation.by_label()}
    rows = "".join(
        f"<tr><td>{escape(own)}</td>"
        + "".join(_cell(counts[own, first], pictures[own]) for first in evaluation.labels)
        + "</tr>"
        for own in evaluation.labels
    )
    head = "".join(f"<th>{escape(first)}</th>" for first in evaluation.labels)
    return f"<figure><table><tr><th>label ↓ ranked first →</th>{head}</tr>{rows}</table></figure>"


def _cell(count: int, of: int) -> str:
    share = count / of if of else 0.0
    return f'<td style="background: color-mix(in srgb, var(--bar) {share:.0%}, transparent)">{count or ""}</td>'


def _worst(evaluation: Evaluation) -> str:
    worst = evaluation.worst()
    if not worst:
        return "<p>There are none.</p>"
    return '<ul class="worst">' + "".join(map(_mistake, worst)) + "</ul>"


def _mistake(one: Judged) -> str:
    first = one.ranking[0]
    return (
        f"<li>{_thumbnail(one.example.image)}{escape(one.example.label)} ({one.score:.1%}, place {one.rank}), "
        f"ranked first: <b>{escape(first.label)}</b> ({first.score:.1%})<br>{escape(one.example.image)}</li>"
    )


def _thumbnail(image: str) -> str:
    """Return a small copy of a local file as HTML; an empty string if Pillow cannot read it or is not installed."""
    try:
        from PIL import Image

        with Image.open(Path(image)) as file:
            file.draft("RGB", (2 * THUMBNAIL_PIXELS, 2 * THUMBNAIL_PIXELS))
            small = file.convert("RGB")
        small.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    except Exception:  # a picture that cannot be shown here may still have been classified
        return ""
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="" width="{small.width}" height="{small.height}" src="data:image/jpeg;base64,{data}">'
