"""The rows as a person reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

FIGURES = ("jobs_per_s", "p50_ms", "p95_ms", "memory_mb", "start_s")


def with_ratios(rows: Sequence[dict[str, Any]], ours: str) -> list[dict[str, Any]]:
    """The same rows; where both have figures, ``ratio`` is our jobs a second by theirs, for the same label set."""
    rates = {row["labels"]: row["jobs_per_s"] for row in rows if row["name"] == ours and "jobs_per_s" in row}
    return [
        {**row, "ratio": round(rates[row["labels"]] / row["jobs_per_s"], 2)}
        if row.get("jobs_per_s") and row["labels"] in rates
        else row
        for row in rows
    ]


def table_of(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """One line a row, label set after label set; a failed row says why in place of its figures."""
    table = Table(title=title)
    table.add_column("labels", justify="right")
    table.add_column("name", no_wrap=True)
    for name in FIGURES:
        table.add_column(name.replace("_per_", "/").replace("_", " "), justify="right")
    table.add_column("nameshot/it", justify="right")
    table.add_column("note")
    for row in sorted(rows, key=lambda row: row["labels"]):
        ratio = "" if "ratio" not in row else f"{row['ratio']}x"
        figures = [str(row.get(name, "–")) for name in FIGURES]
        table.add_row(str(row["labels"]), row["name"], *figures, ratio, escape(row.get("error", "")))
    return table
