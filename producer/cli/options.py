"""The options that several commands share."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from producer.cli import output
from producer.cli.failures import printable
from producer.contract.job import MAX_RETRIES, Question
from producer.contract.labels import DEFAULT_TEMPLATE
from producer.contract.names import Queue
from producer.contract.spelling import Spelling
from producer.errors import InvalidJob, UsageError

Labels = Annotated[
    list[str] | None,
    typer.Option("-l", "--label", help="A candidate label; repeat the option for each label.", metavar="LABEL"),
]
LabelsFile = Annotated[
    Path | None,
    typer.Option(
        "--labels-file",
        help="Candidate labels from a file, one per line; blank lines and those that begin with # are skipped "
        "(give such a label with -l).",
        metavar="FILE",
    ),
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
DownloadTimeout = Annotated[
    float | None,
    typer.Option("--download-timeout", help="Seconds that the download of each image may take.", metavar="S"),
]
Retries = Annotated[
    int,
    typer.Option(
        "--retries",
        min=0,
        max=MAX_RETRIES,
        help="How many more times workers run a job that fails with a retryable error.",
        metavar="N",
    ),
]
QueueName = Annotated[Queue, typer.Option("--queue", help="Queue of the job.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs, one object per line.")]
Show = Annotated[
    bool | None,
    typer.Option(
        "--show/--no-show",
        help="Draw local pictures beside their rankings, with coloured blocks if need be; by default only in a "
        "terminal that has kitty's, iTerm2's or sixel graphics.",
        show_default=False,
    ),
]
Wait = Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for the answer.", metavar="S")]


def question(
    labels: list[str] | None,
    labels_file: Path | None,
    template: list[str] | None,
    top_k: int | None,
    download_timeout: float | None,
) -> dict[str, Any]:
    """Return the options that determine an answer, as arguments of the client's methods.

    The function checks them before any job exists, so that an error names the option and not the first of many jobs.

    Raises:
        UsageError: the first label, template or other option that is invalid.
    """
    typed, from_file = list(labels or []), _labels_in(labels_file)
    if not typed and not from_file:
        raise UsageError("there are no candidate labels; give each with -l, as in -l fox -l bear.")
    sources = [f"label {number} of -l" for number, _ in enumerate(typed, 1)]
    sources += [f"line {line} of {labels_file}" for line, _ in from_file]
    candidates = typed + [label for _, label in from_file]
    return checked_question(candidates, template, top_k, download_timeout, sources)


def warn_of_single_label(labels: list[str]) -> None:
    """Warn if there is only one label: most models compare labels, and give a single one 100 %."""
    if len(labels) > 1:
        return
    parts = [part.strip() for part in labels[0].split(",") if part.strip()]
    advice = "give others to compare it with"
    if len(parts) > 1:
        advice = f"for each of its parts, give {' '.join(f'-l {shlex.quote(part)}' for part in parts[:3])}"
        advice += " …" if len(parts) > 3 else ""
    only = printable(labels[0])
    output.notice(f"nameshot: {only!r} is the only label, and most models give a single one 100 %; {advice}.")


def checked_question(
    labels: list[str],
    template: list[str] | None,
    top_k: int | None = None,
    download_timeout: float | None = None,
    sources: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the arguments of `question` for labels that were read already.

    Args:
        sources: the name that an error uses for each label, such as its line of a file; by default its number.
    """
    templates = template[0] if template and len(template) == 1 else template or DEFAULT_TEMPLATE
    asked = {
        "labels": labels,
        "hypothesis_template": templates,
        "top_k": top_k,
        "download_timeout": download_timeout,
    }
    try:
        Question.checked(*asked.values(), spelling=_OptionSpelling(sources))
    except InvalidJob as error:
        raise UsageError(str(error)) from None
    return asked


def labels_of(labels: list[str] | None, labels_file: Path | None) -> list[str]:
    """Return the labels of both options, in order; raise `UsageError` if the file cannot be read."""
    return [*(labels or []), *(label for _, label in _labels_in(labels_file))]


class _OptionSpelling(Spelling):
    """The names of the options, and the source of each label."""

    __slots__ = ("_sources",)
    _sources: Sequence[str]

    def __init__(self, sources: Sequence[str]) -> None:
        super().__init__("IMAGE", "-l", "--template", "--top-k", "--download-timeout")
        object.__setattr__(self, "_sources", sources)

    def label(self, position: int) -> str:
        """Return the source of a label, or its number."""
        return self._sources[position] if self._sources else f"label {position + 1}"

    def template(self, position: int) -> str:
        """Return the name of one of several templates."""
        return f"template {position + 1} of --template"


def _labels_in(file: Path | None) -> list[tuple[int, str]]:
    """Return the labels in a file, each with its line from 1; blank lines and comments hold none."""
    if file is None:
        return []
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UsageError(f"{str(file)!r} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{str(file)!r} is not UTF-8 text.") from None
    return [
        (number, line) for number, line in enumerate(lines, 1) if line.strip() and not line.lstrip().startswith("#")
    ]
