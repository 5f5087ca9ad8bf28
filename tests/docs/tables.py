"""What the documents say in figures and tables, made from what they describe: ``python -m tests.docs.tables``.

The README's tables of settings, errors and the client's methods come from the code; the figures from files that
``make bench`` and ``python -m checkpoint.evaluate`` wrote; the first snippet's output from the bundled checkpoint
itself. Those of docs/scaling.md are in `tests.docs.scaling_tables`, those of benchmarks/README.md in
`tests.docs.adaptive_table`, the client's in `tests.docs.client_table`, those of docs/operations.md in
`tests.docs.operations_tables`.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from benchmarks import table as benchmark
from benchmarks.report import best_peer
from producer.errors import ERROR_CODES
from producer.settings import PREFIX, ProducerSettings
from tests.docs import (
    adaptive_table,
    client_table,
    decoder_isolation_table,
    operations_tables,
    reducing_gap_table,
    scaling_tables,
)
from worker.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
BENCHMARKS = ROOT / "benchmarks" / "README.md"
BENCHMARK = ROOT / "benchmarks" / "results" / "table.json"
#: Of the settings that both can read, those by which only one side acts.
USED_BY_ONE: Mapping[str, str] = {
    "max_queue": "client",  # a worker gives back what it holds, however many messages wait
    "log_level": "worker",  # an application configures its own logging; commands print
    "log_format": "worker",
}
EVALUATION = ROOT / "worker" / "bundled" / "emoji-clip" / "evaluation.json"


def environment() -> str:
    """One row per setting: the variable, its default, who uses it, what it means."""
    rows = ["| variable | default | used by | meaning |", "| --- | --- | --- | --- |"]
    for name, field in WorkerSettings.model_fields.items():
        default = "–" if field.default in (None, "") else f"`{field.default}`"
        rows.append(f"| `{PREFIX}{name.upper()}` | {default} | {used_by(name)} | {field.description} |")
    return "\n".join(rows)


def used_by(name: str) -> str:
    """Whether clients, workers or both act by a setting."""
    return "worker" if name not in ProducerSettings.model_fields else USED_BY_ONE.get(name, "both")


def errors() -> str:
    """One row per error code: whether trying again can help, what it means, what to do."""
    rows = ["| code | retry? | what happened | what to do |", "| --- | --- | --- | --- |"]
    for row in ERROR_CODES.values():
        retry = "408, 425, 429, 5xx" if row.code == "http_status" else "yes" if row.retryable else "no"
        rows.append(f"| `{row.code}` | {retry} | {row.meaning} | {row.advice} |")
    return "\n".join(rows)


def speed() -> str:
    """The benchmark's summary in a few sentences."""
    report = json.loads(BENCHMARK.read_text())
    rows = {(row["name"], row["load"], row["labels"], row["images_of_own_labels"]): row for row in report["rows"]}
    forward, loop = rows["forward", "limit", None, None], rows["loop", "limit", 4, None]
    single, bulk = rows["nameshot", "single", 4, None], rows["nameshot", "bulk", 4, None]
    best = " and ".join(
        f"{row['ahead']:.1f} times {row['name']}'s rate with {labels} labels"
        for labels, row in best_peer(report["rows"], "nameshot").items()
    )
    return (
        f"**Speed**: a random {report['model']} on {report['machine']['cores']} CPU cores computes "
        f"{forward['jobs_per_s']:.1f} images/s bare at its best; a loop by hand that decodes and classifies files in "
        f"memory does {loop['jobs_per_s']:.1f}. Through the whole system, from HTTP to result, it answers "
        f"{single['jobs_per_s']:.1f} single jobs/s and {bulk['jobs_per_s']:.1f} images/s in bulk: "
        f"{single['of_loop']:.0%} and {bulk['of_loop']:.0%} of the loop, measured right before and after, since a "
        "machine's speed drifts. Clients that each wait for one job "
        f"get {best}, the best of what one would run instead. `make bench` measures it on your machine, "
        "[benchmarks](benchmarks/README.md) has the table; no GPU was measured yet."
    )


def checkpoint() -> str:
    """How well the toy checkpoint names pictures of a style that it never saw."""
    report = json.loads(EVALUATION.read_text())
    unseen = report["styles"][report["never_seen"]]["english"]
    return (
        f"{report['parameters'] / 1e6:.1f} M parameters, {report['concepts']} concrete nouns, emoji only. On a style "
        f"that it never saw it names {unseen['top_1_of_10']:.0%} of the pictures right among 10 random names, and "
        f"{unseen['top_1_of_all']:.0%} among all of them."
    )


def bench(number: int) -> str:
    """One of the benchmark's tables."""
    report = json.loads(BENCHMARK.read_text())
    title, columns, lines = benchmark.tables(report)[number]
    said = f"\n\n{benchmark.in_words(report, 'nameshot')}" if number == 0 else ""
    return f"{title[:1].upper()}{title[1:]}:\n\n{benchmark.markdown(columns, lines)}{said}"


PAGES: Mapping[Path, Mapping[str, Callable[[], str]]] = {
    README: {
        **client_table.TABLES,
        "environment": environment,
        "errors": errors,
        "speed": speed,
        "checkpoint": checkpoint,
    },
    BENCHMARKS: {
        "rates": partial(bench, 0),
        "latencies": partial(bench, 1),
        "stages": partial(bench, 2),
        "decoder_isolation": decoder_isolation_table.rows,
        "reducing_gap": reducing_gap_table.rows,
        **adaptive_table.TABLES,
    },
    ROOT / "docs" / "scaling.md": scaling_tables.TABLES,
    ROOT / "docs" / "operations.md": operations_tables.TABLES,
}


def updated(page: Path) -> str:
    """The page's text with every table as its source has it."""
    text = page.read_text()
    for name, table in PAGES[page].items():
        start, end = f"<!-- table: {name} -->\n", "<!-- end -->"
        before, found, rest = text.partition(start)
        if not found:
            raise ValueError(f"{page.name} has no place for the table {name}")
        text = before + start + table() + "\n" + end + rest.partition(end)[2]
    return text


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(updated(page))
