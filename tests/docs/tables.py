"""Generates the documents' figures and tables from the code and the measurements: ``python -m tests.docs.tables``.

The tables of settings, errors and client methods come from the code; the figures from files that ``make bench`` and
``python -m checkpoint.evaluate`` wrote. `tests.docs.scaling_tables` holds those of docs/scaling.md,
`tests.docs.adaptive_table` those of benchmarks/README.md, `tests.docs.client_table` those of docs/client.md,
`tests.docs.operations_tables` those of docs/operations.md, and `tests.docs.problems_table` that of docs/http-api.md.
`tests.docs.parts_drawing` draws CONTRIBUTING.md's parts.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from benchmarks import table as benchmark
from benchmarks.report import best_peer
from producer.errors import ERROR_CODES
from producer.settings import PREFIX, ProducerSettings
from producer.web.settings import WebSettings
from tests.docs import (
    adaptive_table,
    client_table,
    decoder_isolation_table,
    operations_tables,
    parts_drawing,
    problems_table,
    reducing_gap_table,
    scaling_tables,
)
from worker.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
BENCHMARKS = ROOT / "benchmarks" / "README.md"
BENCHMARK = ROOT / "benchmarks" / "results" / "table.json"
#: The settings that both sides can read and only one side uses.
USED_BY_ONE: Mapping[str, str] = {
    "max_queue": "client",  # a worker requeues what it holds, however many messages wait
}
#: An application configures its own logging, and other commands print.
OF_PROGRAMS_THAT_LOG = {"log_level", "log_format"}
EVALUATION = ROOT / "worker" / "bundled" / "emoji-clip" / "evaluation.json"


def environment() -> str:
    """Return one row per setting: the variable, its default, the side that uses it, and its meaning."""
    rows = ["| variable | default | used by | meaning |", "| --- | --- | --- | --- |"]
    of_the_front = {
        name: field for name, field in WebSettings.model_fields.items() if name not in ProducerSettings.model_fields
    }
    for name, field in (WorkerSettings.model_fields | of_the_front).items():
        default = "–" if field.default in (None, "") else f"`{field.default}`"
        rows.append(f"| `{PREFIX}{name.upper()}` | {default} | {used_by(name)} | {field.description} |")
    return "\n".join(rows)


def used_by(name: str) -> str:
    """Return which programs use a setting."""
    if name in OF_PROGRAMS_THAT_LOG:
        return "worker, `serve`"
    if name in WebSettings.model_fields and name not in ProducerSettings.model_fields:
        return "`serve`"
    return "worker" if name not in ProducerSettings.model_fields else USED_BY_ONE.get(name, "both")


def errors() -> str:
    """Return one row per error code: whether a retry can help, what the code means, and what to do."""
    rows = ["| code | retry? | what happened | what to do |", "| --- | --- | --- | --- |"]
    for row in ERROR_CODES.values():
        retry = "408, 425, 429, 5xx" if row.code == "http_status" else "yes" if row.retryable else "no"
        rows.append(f"| `{row.code}` | {retry} | {row.meaning} | {row.advice} |")
    return "\n".join(rows)


def speed() -> str:
    """Return the benchmark's summary in one sentence."""
    report = json.loads(BENCHMARK.read_text())
    rows = {(row["name"], row["load"], row["labels"], row["images_of_own_labels"]): row for row in report["rows"]}
    single = rows["nameshot", "single", 4, None]
    best = " and ".join(
        f"{row['ahead']:.1f}× the jobs/s of {row['name']} with {labels} labels"
        for labels, row in best_peer(report["rows"], "nameshot").items()
    )
    loop = f"{single['of_loop']:.0%} of a hand-written loop over files in memory"
    return (
        f"**Speed**: on {report['machine']['cores']} CPU cores with a randomly initialised {report['model']}, the "
        f"whole system, from HTTP to result, answers {single['jobs_per_s']:.1f} jobs/s, {loop}. When "
        f"each client waits for its job, it answers {best}, the fastest alternatives measured "
        "([benchmarks](benchmarks/README.md); no GPU was measured yet)."
    )


def checkpoint() -> str:
    """Return how well the toy checkpoint names pictures in a style that it was not trained on."""
    report = json.loads(EVALUATION.read_text())
    unseen = report["styles"][report["never_seen"]]["english"]
    return (
        f"{report['parameters'] / 1e6:.1f} M parameters, {report['concepts']} concrete nouns, emoji only. In a style "
        f"that it was not trained on, it names {unseen['top_1_of_10']:.0%} of the pictures correctly among 10 random "
        f"names and {unseen['top_1_of_all']:.0%} among all of them."
    )


def bench(number: int) -> str:
    """Return one of the benchmark's tables."""
    report = json.loads(BENCHMARK.read_text())
    title, columns, lines = benchmark.tables(report)[number]
    said = f"\n\n{benchmark.in_words(report, 'nameshot')}" if number == 0 else ""
    return f"{title[:1].upper()}{title[1:]}:\n\n{benchmark.markdown(columns, lines)}{said}"


PAGES: Mapping[Path, Mapping[str, Callable[[], str]]] = {
    README: {
        "speed": speed,
    },
    DOCS / "client.md": client_table.TABLES,
    DOCS / "settings.md": {"environment": environment},
    DOCS / "errors.md": {"errors": errors},
    DOCS / "http-api.md": problems_table.TABLES,
    DOCS / "how-it-works.md": {"checkpoint": checkpoint},
    BENCHMARKS: {
        "rates": partial(bench, 0),
        "latencies": partial(bench, 1),
        "stages": partial(bench, 2),
        "decoder_isolation": decoder_isolation_table.rows,
        "reducing_gap": reducing_gap_table.rows,
        **adaptive_table.TABLES,
    },
    DOCS / "scaling.md": scaling_tables.TABLES,
    DOCS / "operations.md": operations_tables.TABLES,
    ROOT / "CONTRIBUTING.md": parts_drawing.TABLES,
}


def updated(page: Path) -> str:
    """Return the page's text with every table generated anew."""
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
