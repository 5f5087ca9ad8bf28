"""``nameshot bulk``: classify any number of images with the same labels, or resume an interrupted run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from producer.cli import options, output
from producer.cli.bulk.input import BulkInput, Format, Record
from producer.cli.connection import connect, running_system
from producer.cli.missing_worker import told_of_missing_workers
from producer.errors import UsageError

if TYPE_CHECKING:
    from producer import BulkOutcome
    from producer.cli.bulk.output import BulkOutput
    from producer.embedded.home import UpInfo


def bulk(
    file: Annotated[
        str, typer.Argument(help="Text, CSV, TSV or JSONL with the images' URLs; - is standard input.", metavar="FILE")
    ],
    label: options.Labels = None,
    labels_file: options.LabelsFile = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="File for the answers, as JSONL; default: standard output.", metavar="FILE"),
    ] = None,
    template: options.Template = None,
    top_k: options.TopK = None,
    download_timeout: options.DownloadTimeout = None,
    queue: options.QueueName = "bulk",
    file_format: Annotated[
        Format,
        typer.Option("--format", help="Format of the input; auto chooses it by the name, or else by the first line."),
    ] = "auto",
    column: Annotated[
        str | None,
        typer.Option("--column", help="Column (name, or number from 1) or JSON key of the image.", metavar="NAME"),
    ] = None,
    ordered: Annotated[
        bool,
        typer.Option(
            "--ordered",
            help="Write answers in the input's order. A slow image then delays those after it, which stay in memory.",
        ),
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Retry the images that failed in an earlier run with a retryable code."),
    ] = False,
) -> int:
    """Classify every image of a list of any length.

    To resume an interrupted run, run the same command again with the same -o. Each answer is written as soon as it
    arrives, and names its line of the input. Exits with status 1 if an image failed.
    """
    from producer.cli.bulk.output import BulkOutput, question_digest
    from producer.processes.raised_signals import Stopped, raised_signals

    question = options.question(label, labels_file, template, top_k, download_timeout)
    if retry_failed and out is None:
        raise UsageError("--retry-failed needs the file of an earlier run; name it with -o.")
    if retry_failed and ordered:
        raise UsageError("--retry-failed appends its answers, so it cannot keep the order; leave out --ordered.")
    source = BulkInput(file, file_format, column)
    digest = question_digest(question["labels"], question["hypothesis_template"], top_k)
    try:
        with raised_signals(), BulkOutput(out, digest, retry_failed=retry_failed) as answers:
            _run(source, {**question, "queue": queue, "ordered": ordered}, answers)
            return 1 if answers.failed else 0
    except Stopped as stopped:
        if out is not None:
            output.notice(f"nameshot: stopped; run the same command to resume ({out}).")
        return 128 + stopped.signal_number


def _run(source: BulkInput, arguments: dict[str, Any], answers: BulkOutput) -> None:
    from producer.cli.bulk.progress import Progress

    under_way: dict[int, Record] = {}
    with (
        source.open() as text,
        connect() as client,
        Progress(source.count(), done=answers.succeeded + answers.failed) as progress,
    ):
        urls = _unanswered(source.records(text), answers, under_way, running_system(), ordered=arguments["ordered"])
        # If an exception ends the loop, closing the stream cancels the messages in flight.
        with (
            contextlib.closing(client.classify_many(urls, **arguments)) as stream,
            told_of_missing_workers(client) as answered,
        ):
            for outcome in stream:
                answered()
                record = under_way.pop(outcome.index)
                answers.write(record, _answer(record, outcome))
                progress.advance(failed=not outcome.ok)
        progress.summary(answers)


def _unanswered(
    records: Iterator[Record],
    answers: BulkOutput,
    under_way: dict[int, Record],
    up: UpInfo | None,
    *,
    ordered: bool,
) -> Iterator[str]:
    """Yield the URL of each record without an answer, and add the record to ``under_way`` by the URL's position."""
    from producer.cli.bulk.output import BulkOutputError

    position = 0
    for record in records:
        if answers.has(record):
            if ordered and position:
                raise BulkOutputError("the earlier answers are not in the input's order; leave out --ordered.")
            continue
        under_way[position] = record
        position += 1
        yield _url(record, up)


def _url(record: Record, up: UpInfo | None) -> str:
    """Return the URL to send; for a record without an image, return the empty string, which the client refuses."""
    if up is None or "://" in record.image or not record.image:
        return record.image
    from producer.embedded.pictures import file_url

    try:
        return file_url(up.url, up.file_secret, Path(record.image))
    except (OSError, ValueError):
        return record.image


def _answer(record: Record, outcome: BulkOutcome) -> dict[str, Any]:
    if outcome.result is not None:
        return {"result": outcome.result.to_dict()}
    from producer.errors import JobFailed

    error = JobFailed("invalid_job", f"{record.problem}.") if record.problem else outcome.error
    if error is None:
        raise ValueError("an outcome has neither a result nor an error")
    return {"error": error.to_dict()}
