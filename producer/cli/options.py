"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from producer.cli.usage import UsageError
from producer.contract import DEFAULT_TEMPLATE, Question, Queue
from producer.errors import InvalidJob

Labels = Annotated[
    list[str] | None, typer.Option("-l", "--label", help="A candidate label; give one for each.", metavar="LABEL")
]
LabelsFile = Annotated[
    Path | None, typer.Option("--labels-file", help="Candidate labels from a file, one a line.", metavar="FILE")
]
Template = Annotated[
    list[str] | None,
    typer.Option(
        "--template",
        help=f"Hypothesis template with one {{}} (default: {DEFAULT_TEMPLATE!r}); several make an ensemble.",
        metavar="TEXT",
    ),
]
TopK = Annotated[int | None, typer.Option("--top-k", min=1, help="Keep only the best of the labels.", metavar="N")]
Timeout = Annotated[
    float | None, typer.Option("--timeout", help="Seconds for the download of each image.", metavar="S")
]
QueueName = Annotated[Queue, typer.Option("--queue", help="Which queue the job waits in.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs, one object a line.")]
Wait = Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for the answer.", metavar="S")]


def candidate_labels(labels: list[str] | None, labels_file: Path | None) -> list[str]:
    """The labels of both options, in order; raises `UsageError` when there are none."""
    chosen = list(labels or [])
    if labels_file is not None:
        try:
            lines = labels_file.read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            raise UsageError(f"{str(labels_file)!r} cannot be read: {error.strerror}.") from None
        except UnicodeDecodeError:
            raise UsageError(f"{str(labels_file)!r} is not UTF-8 text.") from None
        chosen += [line for line in lines if line.strip()]
    if not chosen:
        raise UsageError("there are no candidate labels; give each with -l, as in -l fox -l bear.")
    return chosen


def templates(given: list[str] | None) -> str | list[str]:
    """The ``hypothesis_template`` argument for what was given."""
    if not given:
        return DEFAULT_TEMPLATE
    return given[0] if len(given) == 1 else given


def check_question(labels: list[str], given: list[str] | None, top_k: int | None, timeout: float | None) -> None:
    """Check what is asked of every image, so that the sentence speaks of an option and not of the first of many jobs.

    Raises:
        UsageError: the first label, template or other option that cannot be.
    """
    try:
        Question.checked(labels, templates(given), top_k, timeout)
    except InvalidJob as error:
        raise UsageError(str(error)) from None
