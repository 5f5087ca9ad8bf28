"""Formats the report for people: for the terminal, and as Markdown for the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from benchmarks.report import best_peer
from benchmarks.stages.split import STAGES

COLUMNS = (
    "labels",
    "what",
    "jobs/s",
    "rounds",
    "of the forward pass",
    "of the bare loop",
    "nameshot is",
    "CPU ms",
    "beyond the model",
)
WHOLE = ("start s", "memory MB")


def lines(report: dict[str, Any]) -> list[list[str]]:
    """Return the cells under `COLUMNS`: the limits, nameshot and the peers, by label count."""
    found = [[label_of(row), name_of(row), *_figures(row)] for row in in_order(report["rows"])]
    errors = {name: one["error"] for name, one in report["contenders"].items() if "error" in one}
    return found + [["", name, f"failed: {error}", *[""] * (len(COLUMNS) - 3)] for name, error in errors.items()]


def tables(report: dict[str, Any]) -> list[tuple[str, Sequence[str], list[list[str]]]]:
    """Return the title, the columns and the lines of each table of the report."""
    machine = report["machine"]
    of_contenders = [
        [name, *(str(one.get(key, "")) for key in ("start_s", "memory_mb")), *_latencies(report, name)]
        for name, one in report["contenders"].items()
        if "start_s" in one
    ]
    shares = list(dict.fromkeys(row["share"] for row in report["latencies"]))
    base_per_s = next((row["offered_per_s"] / row["share"] for row in report["latencies"]), 0.0)
    offered = [f"p50/p95/p99 ms at {share:.0%}" for share in shares]
    return [
        (f"{report['model']}, {machine['cores']} cores of {machine['cpu']}", COLUMNS, lines(report)),
        (
            f"start, memory and latency; the loads are shares of {base_per_s:.1f} jobs/s",
            ("", *WHOLE, *offered),
            of_contenders,
        ),
        (
            "CPU ms per job of nameshot, by stage",
            ("model", "load", "labels", *STAGES, "outside the model", "the queue's share of it", "the model", "client"),
            [
                [
                    row["model_name"],
                    row["load"],
                    str(row["labels"]),
                    *(f"{row[stage]:.2f}" for stage in (*STAGES, "outside")),
                    f"{row['queue_share']:.1%}",
                    f"{row['model']:.1f}",
                    f"{row['client']:.2f}",
                ]
                for row in report["stages"]
            ],
        ),
    ]


def for_terminal(title: str, columns: Sequence[str], cells: list[list[str]]) -> Table:
    """Return one of `tables` for the terminal."""
    table = Table(title=title)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < 2 else "right")
    for line in cells:
        table.add_row(*map(escape, line))
    return table


def markdown(columns: Sequence[str], cells: list[list[str]]) -> str:
    """Return one of `tables` as Markdown."""
    rule = ["---", "---", *["---:"] * (len(columns) - 2)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (columns, rule, *cells))


def in_order(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows in the order of the table."""
    return sorted(rows, key=_order)


def in_words(report: dict[str, Any], ours: str) -> str:
    """Return what no table shows: the lone job, the best peer by label count, and an image's CPU time by part."""
    lone = report["lone"]
    said = [
        f"a lone job takes {lone['job_ms']} ms, {lone['longer_ms']} ms longer than a direct call of the model "
        f"({lone['direct_ms']} ms)",
        "the lone job's stages in ms: " + ", ".join(f"{name} {ms}" for name, ms in lone["stages_ms"].items()),
    ]
    said += [
        f"{labels} labels: the best peer is {row['name']}; {ours} is {row['ahead']:.2f}x"
        for labels, row in best_peer(report["rows"], ours).items()
    ]
    bare_ms = next((row["cpu_ms"] for row in report["rows"] if row["name"] == "forward"), None)
    said += [
        f"{row['load']}, {row['labels']} labels, CPU ms per image: the model {row['model']:.1f} (the bare forward pass "
        f"{bare_ms:.1f}); decoding, which the bare loop does too, {row['decode']:.1f}; fetching {row['fetch']:.1f}; "
        f"the queue {_queue_ms(row):.1f}; the client, which shares the cores, {row['client']:.1f}"
        for row in report["stages"]
        if bare_ms is not None and row["model_name"] == report["model"]
    ]
    return "\n".join(said)


def _queue_ms(row: Mapping[str, Any]) -> float:
    return float(row["queue_share"] * row["outside"])


def _order(row: dict[str, Any]) -> tuple[int, int, int]:
    """Sort rows with the same labels before different ones, rows without labels first, and limits before others."""
    is_own = row["images_of_own_labels"] is not None
    return is_own, row["labels"] or 0, {"limit": 0, "single": 1, "bulk": 2, "clients": 3}[row["load"]]


def label_of(row: Mapping[str, Any]) -> str:
    """Return a row's labels in words."""
    if row["labels"] is None:
        return ""
    images = row["images_of_own_labels"]
    return f"{row['labels']}" + ({None: "", 1: " of its own"}.get(images, f" per {images}"))


def name_of(row: Mapping[str, Any]) -> str:
    """Return a row's name in words."""
    if row["load"] == "limit":
        return {"forward": "forward pass", "loop": "bare loop"}[row["name"]]
    return f"{row['name']}, {row['load']}" if row["load"] != "clients" else f"{row['name']}, waiting clients"


def _figures(row: dict[str, Any]) -> list[str]:
    low, high = row["spread"]
    return [
        f"{row['jobs_per_s']:.2f}",
        f"{low:.2f} to {high:.2f}",
        *(f"{row[ratio]:.0%}" if ratio in row else "" for ratio in ("of_forward", "of_loop")),
        f"{row['ahead']:.2f}x" if "ahead" in row else "",
        f"{row['cpu_ms']:.0f}",
        f"{row['beyond_ms']:+.0f}" if row["name"] != "forward" else "",
    ]


def _latencies(report: dict[str, Any], name: str) -> list[str]:
    of_name = {row["share"]: row for row in report["latencies"] if row["name"] == name}
    shares = dict.fromkeys(row["share"] for row in report["latencies"])
    return [
        "/".join(str(of_name[share][f"p{percent}_ms"]) for percent in (50, 95, 99)) if share in of_name else "overload"
        for share in shares
    ]
