"""``nameshot evaluate``: how often a model is right about pictures whose labels are known."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Final

import typer

from producer.cli import options, output
from producer.cli.bulk.rows import IMAGE_NAMES
from producer.cli.connection import connect, image_url, running_system
from producer.cli.evaluate.examples import LABEL_NAMES, choice
from producer.cli.failures import printable
from producer.cli.missing_worker import told_of_missing_workers
from producer.errors import UsageError

if TYPE_CHECKING:
    from producer.cli.evaluate.examples import Example
    from producer.cli.evaluate.measures import Evaluation, Judged

#: The maximum number of files that one message names.
_MOST_NAMED: Final = 20


def evaluate(
    source: Annotated[
        Path,
        typer.Argument(
            help="A folder with a folder of pictures for each label, or a CSV file of images and labels, split at "
            f"commas, semicolons or tabs. Its header names the column of the images {choice(IMAGE_NAMES)}, and that of "
            f"the labels {choice(LABEL_NAMES)}; without a header these are the first two columns.",
            metavar="FOLDER|CSV",
        ),
    ],
    label: options.Labels = None,
    labels_file: options.LabelsFile = None,
    template: options.Template = None,
    download_timeout: options.DownloadTimeout = None,
    queue: options.QueueName = "bulk",
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Also write one HTML page with plots and the worst pictures.", metavar="FILE"),
    ] = None,
    as_json: options.AsJson = False,
) -> int:
    """Classify pictures whose labels are known, and print how often the model is right.

    The candidate labels are those of the pictures; -l and --labels-file add others. In a folder's name, an underscore
    stands for a space. Exits with status 1 if an image failed.
    """
    from producer.cli.evaluate.examples import others_in, read_examples, strays_in

    examples = read_examples(source)
    labels = list(dict.fromkeys([*(each.label for each in examples), *options.labels_of(label, labels_file)]))
    if len(labels) == 1:
        advice = "the folder whose subfolders are the labels" if source.is_dir() else "rows with other labels"
        raise UsageError(
            f"there is only one label ({labels[0]!r}), so every answer would be right: give {advice}, or add others "
            "with -l."
        )
    if strays := strays_in(source):
        lie = "lies" if len(strays) == 1 else "lie"
        left_out = f"{output.counted(len(strays), 'picture')} that {lie} in no label's folder of {source}"
        output.notice(f"nameshot: left out {left_out}: {_named(strays, source)}.")
    if others := others_in(source):
        left_out = f"{output.counted(len(others), 'file')} whose name does not end as that of a picture"
        output.notice(f"nameshot: left out {left_out}: {_named(others, source)}.")
    question = options.checked_question(labels, template, download_timeout=download_timeout)
    if html is not None:
        with _opened(html, "a"):  # so that a wrong path is found before the pictures are sent
            pass
    evaluation = _classified(examples, labels, {**question, "queue": queue})
    if html is not None:
        _write_page(html, evaluation, f"{source.name or source}: {output.counted(len(examples), 'picture')}")
    if as_json:
        output.print_json(evaluation.to_json())
    else:
        _print(evaluation)
    return 1 if evaluation.failed else 0


def _named(files: Sequence[Path], folder: Path) -> str:
    """Return the first of these files as text, by their paths inside a folder."""
    names = ", ".join(printable(str(path.relative_to(folder))) for path in files[:_MOST_NAMED])
    return names + ("…" if files[_MOST_NAMED:] else "")


def _classified(examples: Sequence[Example], labels: Sequence[str], arguments: dict[str, Any]) -> Evaluation:
    from producer.cli.bulk.progress import Progress
    from producer.cli.evaluate.measures import Evaluation, Failure, Judged
    from producer.operations.workers import is_unserved

    up = running_system()
    urls = [image_url(example.image, up) for example in examples]
    judged: dict[int, Judged] = {}
    failed: dict[int, Failure] = {}
    with (
        connect() as client,
        Progress(len(examples), done=0) as progress,
        contextlib.closing(client.classify_many(urls, **arguments)) as stream,
        told_of_missing_workers(lambda prefix: is_unserved(prefix, arguments["queue"])) as answered,
    ):
        for outcome in stream:
            answered()
            if outcome.result is not None:
                judged[outcome.index] = Judged(examples[outcome.index], outcome.result.ranking)
            elif outcome.error is not None:
                failed[outcome.index] = Failure(examples[outcome.index], outcome.error)
            progress.advance(failed=not outcome.ok)
    return Evaluation(
        tuple(labels),
        tuple(judged[index] for index in sorted(judged)),
        tuple(failed[index] for index in sorted(failed)),
    )


def _write_page(file: Path, evaluation: Evaluation, title: str) -> None:
    from producer.cli.evaluate.page import page

    with _opened(file, "w") as opened:
        opened.write(page(evaluation, title))


@contextlib.contextmanager
def _opened(file: Path, mode: str) -> Iterator[IO[str]]:
    try:
        with file.open(mode, encoding="utf-8") as opened:
            yield opened
    except OSError as error:
        raise UsageError(f"{str(file)!r} cannot be written: {error.strerror}.") from None


def _print(evaluation: Evaluation) -> None:
    from rich.table import Table

    from producer.cli.evaluate.measures import percent

    console = output.console()
    top_1, top_5 = (share if share is not None else 0.0 for share in (evaluation.top(1), evaluation.top(5)))
    counted = output.counted
    pictures, labels = counted(len(evaluation.judged), "picture"), counted(len(evaluation.labels), "label")
    console.print(f"{pictures}, {labels}", markup=False)
    if evaluation.failed:
        console.print(
            f"{counted(len(evaluation.failures), 'picture')} failed ({evaluation.failed_by_code})", markup=False
        )
    console.print(f"top-1 {top_1:.1%}, top-5 {top_5:.1%}", markup=False)
    table = Table("label", "pictures", "recall", "precision", box=None)
    for each in evaluation.by_label():
        table.add_row(each.label, f"{each.pictures:,}", percent(each.recall), percent(each.precision))
    console.print(table, markup=False)
    for one in evaluation.worst():
        console.print(_mistake(one), markup=False)
    for failure in evaluation.failures[:_MOST_NAMED]:
        console.print(printable(f"{failure.example.image}: {failure.error}"), markup=False)
    if others := len(evaluation.failures[_MOST_NAMED:]):
        console.print(f"and {counted(others, 'other')}; --json names all of them", markup=False)


def _mistake(one: Judged) -> str:
    first = one.ranking[0]
    own = f"{one.example.label} {one.score:.1%} (place {one.rank})"
    return f"{one.example.image}: {own}, ranked first: {first.label} {first.score:.1%}"
