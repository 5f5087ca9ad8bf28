"""``nameshot bulk``: classify any number of images with the same labels, or resume an interrupted run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from producer.cli import options, output
from producer.cli.bulk.input import BulkInput
from producer.cli.bulk.rows import Format, Record
from producer.cli.connection import connect, image_url, running_system
from producer.cli.missing_worker import told_of_missing_workers
from producer.contract.job import MAX_IMAGES_PER_MESSAGE
from producer.errors import UsageError

if TYPE_CHECKING:
    from producer import BulkOutcome
    from producer.cli.bulk.output import BulkOutput


def bulk(
    file: Annotated[
        str,
        typer.Argument(
            help="Text, CSV, JSONL or Parquet (also gzipped) with URLs or, while `nameshot up` runs, paths of local "
            "files; - is standard input.",
            metavar="FILE",
        ),
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
        typer.Option("--format", help="Format of the input; auto chooses it by the file's name or its first line."),
    ] = "auto",
    column: Annotated[
        str | None,
        typer.Option(
            "--column",
            help="Column of the images, by its name or its number from 1, or their JSON key. With a number, a first "
            "row that holds an image in this column is not a header.",
            metavar="NAME",
        ),
    ] = None,
    images_per_message: Annotated[
        int | None,
        typer.Option(
            "--images-per-message",
            min=1,
            max=MAX_IMAGES_PER_MESSAGE,
            help="Images in one message (default: 32). With fewer, more workers share a short list.",
            metavar="N",
        ),
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
        typer.Option("--retry-failed", help="Retry the images whose error in an earlier run was retryable."),
    ] = False,
) -> int:
    """Classify every image of a list of any length.

    To resume an interrupted run, run the same command again with the same -o. Each answer is written at once
    (with --ordered, after those before it), with its line number in the input and the `id`, if the input has one. Exits
    with status 1 if an image failed.
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
    arguments = {**question, "queue": queue, "ordered": ordered}
    if images_per_message is not None:
        arguments["images_per_message"] = images_per_message
    under_way: dict[int, Record] = {}
    try:
        with raised_signals(), BulkOutput(out, digest, retry_failed=retry_failed) as answers:
            _run(source, arguments, answers, under_way)
            return 1 if answers.failed else 0
    except Stopped as stopped:
        left = sum(1 for record in under_way.values() if not record.problem)
        answers_were = "its answer was" if left == 1 else "their answers were"
        unanswered = f"; cancelled {output.counted(left, 'image')} before {answers_were} written" if left else ""
        advice = "with -o FILE a run can be resumed" if out is None else f"run the same command to resume ({out})"
        output.notice(f"nameshot: stopped{unanswered}; {advice}.")
        return 128 + stopped.signal_number


def _run(source: BulkInput, arguments: dict[str, Any], answers: BulkOutput, under_way: dict[int, Record]) -> None:
    """Send the records without an answer, and write the answers.

    Args:
        under_way: holds each record that was read and has no written answer yet, by its URL's position.
    """
    from producer.cli.bulk.progress import Progress
    from producer.operations.workers import is_unserved

    with (
        source.open() as stream,
        connect() as client,
        Progress(source.count(), done=answers.succeeded + answers.failed) as progress,
    ):
        options.warn_of_single_label(arguments["labels"])
        records = _unanswered(source.records(stream), answers, ordered=arguments["ordered"])
        urls = _urls(records, under_way, folder=Path(source.name).parent)
        # If an exception ends the loop, closing the stream cancels the messages in flight.
        with (
            contextlib.closing(client.classify_many(urls, **arguments)) as outcomes,
            told_of_missing_workers(lambda prefix: is_unserved(prefix, arguments["queue"])) as answered,
        ):
            for outcome in outcomes:
                answered()
                record = under_way.pop(outcome.index)
                answers.write(record, _answer(record, outcome))
                progress.advance(failed=not outcome.ok)
        progress.summary(answers)


def _unanswered(records: Iterator[Record], answers: BulkOutput, *, ordered: bool) -> Iterator[Record]:
    from producer.cli.bulk.output import BulkOutputError

    is_first = True
    for record in records:
        if answers.has(record):
            if ordered and not is_first:
                raise BulkOutputError(
                    "an answer is missing before an earlier one, so the order cannot be kept; leave out --ordered."
                )
            continue
        is_first = False
        yield record


def _urls(records: Iterator[Record], under_way: dict[int, Record], folder: Path) -> Iterator[str]:
    """Yield the URL of each record, and add the record to ``under_way`` by the URL's position.

    The URL of a record that cannot be sent is the empty string, which the client refuses.
    """
    up = running_system()
    for position, record in enumerate(records):
        under_way[position] = record
        url = "" if record.problem else record.image
        if url and "://" not in url:
            try:
                url = image_url(_local_path(url, folder), up)
            except UsageError as error:
                under_way[position] = replace(record, problem=str(error).rstrip("."))
                url = ""
        yield url


def _local_path(image: str, folder: Path) -> str:
    """Return the path of a local file, which may be relative to the working directory or to the list's folder."""
    with contextlib.suppress(OSError):  # the name is too long, for example
        if not Path(image).exists() and (folder / image).exists():
            return str(folder / image)
    return image


def _answer(record: Record, outcome: BulkOutcome) -> dict[str, Any]:
    if outcome.result is not None:
        return {"result": outcome.result.to_dict()}
    from producer.errors import JobFailed

    error = outcome.error
    if record.problem:
        error = JobFailed("invalid_url" if record.image else "invalid_job", f"{record.problem}.")
    if error is None:
        raise ValueError("an outcome has neither a result nor an error")
    return {"error": error.to_dict()}
