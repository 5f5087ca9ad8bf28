"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from producer.contract import DEFAULT_TEMPLATE, Question, Queue
from producer.errors import InvalidJob, UsageError

Labels = Annotated[
    list[str] | None, typer.Option("-l", "--label", help="A candidate label; give one for each.", metavar="LABEL")
]
LabelsFile = Annotated[
    Path | None, typer.Option("--labels-file", help="Candidate labels from a file, one per line.", metavar="FILE")
]
Template = Annotated[
    list[str] | None,
    typer.Option(
        "--template",
        help=f"Hypothesis template with one {{}} (default: {DEFAULT_TEMPLATE!r}); several make an ensemble.",
        metavar="TEXT",
    ),
]
TopK = Annotated[int | None, typer.Option("--top-k", min=1, help="Keep only the N best labels.", metavar="N")]
Timeout = Annotated[
    float | None, typer.Option("--timeout", help="Seconds for the download of each image.", metavar="S")
]
QueueName = Annotated[Queue, typer.Option("--queue", help="Queue of the job.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs, one object per line.")]
Wait = Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for the answer.", metavar="S")]


def candidate_labels(labels: list[str] | None, labels_file: Path | None) -> list[str]:
    """Return the labels of both options, in order; raises `UsageError` if there are none."""
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
    """Return the ``hypothesis_template`` argument for the options given."""
    if not given:
        return DEFAULT_TEMPLATE
    return given[0] if len(given) == 1 else given


def check_question(labels: list[str], given: list[str] | None, top_k: int | None, timeout: float | None) -> None:
    """Check the options before any job, so that the error names an option and not the first of many jobs.

    Raises:
        UsageError: the first label, template or other option that is invalid.
    """
    try:
        Question.checked(labels, templates(given), top_k, timeout)
    except InvalidJob as error:
        raise UsageError(str(error)) from None
