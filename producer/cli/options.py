"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from producer.contract.job import Question
from producer.contract.labels import DEFAULT_TEMPLATE
from producer.contract.names import Queue
from producer.errors import InvalidJob, UsageError

Labels = Annotated[
    list[str] | None,
    typer.Option("-l", "--label", help="A candidate label; repeat the option for each label.", metavar="LABEL"),
]
LabelsFile = Annotated[
    Path | None, typer.Option("--labels-file", help="Candidate labels from a file, one per line.", metavar="FILE")
]
Template = Annotated[
    list[str] | None,
    typer.Option(
        "--template",
        help=f"Hypothesis template with one {{}} (default: {DEFAULT_TEMPLATE!r}); repeat the option for an ensemble.",
        metavar="TEXT",
    ),
]
TopK = Annotated[int | None, typer.Option("--top-k", min=1, help="Keep only the N best labels.", metavar="N")]
Timeout = Annotated[
    float | None, typer.Option("--timeout", help="Seconds that the download of each image may take.", metavar="S")
]
QueueName = Annotated[Queue, typer.Option("--queue", help="Queue of the job.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs, one object per line.")]
Wait = Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for the answer.", metavar="S")]


def question(
    labels: list[str] | None,
    labels_file: Path | None,
    template: list[str] | None,
    top_k: int | None,
    timeout: float | None,
) -> dict[str, Any]:
    """Return the options that determine an answer, as arguments of the client's methods.

    The function checks them before any job exists, so that an error names the option and not the first of many jobs.

    Raises:
        UsageError: the first label, template or other option that is invalid.
    """
    templates = template[0] if template and len(template) == 1 else template or DEFAULT_TEMPLATE
    asked = {
        "labels": _candidate_labels(labels, labels_file),
        "hypothesis_template": templates,
        "top_k": top_k,
        "timeout": timeout,
    }
    try:
        Question.checked(*asked.values())
    except InvalidJob as error:
        raise UsageError(str(error)) from None
    return asked


def _candidate_labels(labels: list[str] | None, labels_file: Path | None) -> list[str]:
    """Return the labels of both options, in order; raise `UsageError` if there are none."""
    chosen = labels_of(labels, labels_file)
    if not chosen:
        raise UsageError("there are no candidate labels; give each with -l, as in -l fox -l bear.")
    return chosen


def labels_of(labels: list[str] | None, labels_file: Path | None) -> list[str]:
    """Return the labels of both options, in order; raise `UsageError` if the file cannot be read."""
    chosen = list(labels or [])
    if labels_file is not None:
        try:
            lines = labels_file.read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            raise UsageError(f"{str(labels_file)!r} cannot be read: {error.strerror}.") from None
        except UnicodeDecodeError:
            raise UsageError(f"{str(labels_file)!r} is not UTF-8 text.") from None
        chosen += [line for line in lines if line.strip()]
    return chosen
