"""``nameshot compare`` and ``nameshot verify``: try checkpoints in this process, without a queue."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from producer.cli import options, output
from producer.cli.failures import sentence
from producer.contract.labels import DEFAULT_TEMPLATE
from producer.errors import UsageError

Files = Annotated[list[Path], typer.Argument(help="Local pictures.", metavar="FILE...")]


def compare(
    model_a: Annotated[str, typer.Argument(help="A Hub id, a folder, or bundled.", metavar="MODEL_A")],
    model_b: Annotated[str, typer.Argument(help="The other checkpoint.", metavar="MODEL_B")],
    files: Files,
    label: options.Labels = None,
    labels_file: options.LabelsFile = None,
    template: options.Template = None,
    as_json: options.AsJson = False,
) -> int:
    """Show how the rankings of two checkpoints differ. Both are loaded here, one after the other.

    NAMESHOT_DEVICE and NAMESHOT_DTYPE apply as for a worker. Each label's rank is in brackets. The command names files
    that are not pictures, and leaves them out.
    """
    question = options.question(label, labels_file, template, None, None)
    templates = question["hypothesis_template"]
    if isinstance(templates, str):
        templates = [templates]
    worker = _worker()
    files = _usable(worker, files)
    with output.waiting("loading the checkpoints…"):
        first, second = worker.compare((model_a, model_b), files, question["labels"], templates)
    for file, one, other in zip(files, first, second, strict=True):
        if as_json:
            rankings = {"a": _objects(one), "b": _objects(other)}
            output.print_json({"file": str(file), "model_a": model_a, "model_b": model_b, **rankings})
        else:
            _print_rankings(file, (model_a, model_b), one, other)
    return 0


def verify(
    images: Annotated[
        Path | None,
        typer.Option("--images", help="A folder of pictures of your own (default: the bundled ones).", metavar="DIR"),
    ] = None,
    label: options.Labels = None,
    labels_file: options.LabelsFile = None,
    template: Annotated[
        str, typer.Option("--template", help="Hypothesis template with one {}.", metavar="TEXT")
    ] = DEFAULT_TEMPLATE,
    as_json: options.AsJson = False,
) -> int:
    """Compare this machine's scores with the transformers pipeline's, on your model and device.

    The model and the device are NAMESHOT_MODEL and NAMESHOT_DEVICE, as for a worker. Exits with status 1 if, in
    float32, a score differs by more than 1e-5 or labels are in another order; differences in half precision are only
    printed. The command names files that are not pictures, and leaves them out.
    """
    files, own_labels = _pictures(images)
    if label or labels_file:
        labels: list[str] = options.question(label, labels_file, [template], None, None)["labels"]
    else:
        labels = options.checked_question(own_labels, [template])["labels"]
    worker = _worker()
    files = _usable(worker, files)
    equal = True
    dtypes = ("float32", "bfloat16", "float16")
    rows = []
    with output.waiting("loading the checkpoint…"):
        for verdict in worker.verify(files, labels, template, dtypes):
            equal = equal and (verdict.dtype != "float32" or verdict.is_equal)
            rows.append(verdict)
    if as_json:
        for verdict in rows:
            output.print_json(verdict.to_dict())
    else:
        _print_verdicts(rows)
    return 0 if equal else 1


def _worker() -> Any:
    from producer.cli.doctor.checks_local import has_worker

    if not has_worker():
        raise UsageError("the worker's packages are not installed here; install nameshot[worker].")
    return import_module("worker.command")


def _usable(worker: Any, files: list[Path]) -> list[Path]:
    """Return the files that are pictures, and name the others; raise `UsageError` if none is left."""
    unusable: dict[Path, UsageError] = worker.unusable(files)
    if len(files) == 1 and unusable:
        raise unusable[files[0]]
    for error in unusable.values():
        output.notice(f"nameshot: left out: {sentence(error)}")
    if left := [file for file in files if file not in unusable]:
        return left
    raise UsageError(f"none of the {len(files):,} pictures can be used.")


def _pictures(folder: Path | None) -> tuple[list[Path], list[str]]:
    """Return pictures, and labels for them: the bundled ones, or those of a folder with the bundled labels."""
    from producer.cli.evaluate.examples import pictures_in
    from producer.demo.gallery import FOLDER, pictures

    labels = sorted({label for picture in pictures() for label in picture.candidate_labels})
    if folder is None:
        return [FOLDER / picture.file for picture in pictures()], labels
    try:
        files = pictures_in(folder) if folder.is_dir() else None
    except OSError as error:
        raise UsageError(f"{str(folder)!r} cannot be read: {error.strerror}.") from None
    if files is None:
        raise UsageError(f"{str(folder)!r} is not a folder.")
    if not files:
        raise UsageError(f"{str(folder)!r} holds no pictures.")
    return files, labels


def _objects(ranking: list[tuple[str, float]]) -> list[dict[str, Any]]:
    return [{"label": label, "score": score} for label, score in ranking]


def _print_rankings(
    file: Path, models: tuple[str, str], one: list[tuple[str, float]], other: list[tuple[str, float]]
) -> None:
    from rich.table import Table

    table = Table("label", *models, title=str(file), title_justify="left", box=None)
    places = {label: (place, score) for place, (label, score) in enumerate(other, 1)}
    for place, (label, score) in enumerate(one, 1):
        other_place, other_score = places[label]
        table.add_row(label, f"{score:.1%} ({place})", f"{other_score:.1%} ({other_place})")
    output.console().print(table)


def _print_verdicts(rows: list[Any]) -> None:
    from rich.table import Table

    table = Table("precision", "largest difference", "other order", "other best label", "", box=None)
    for row in rows:
        judged = ("equal" if row.is_equal else "DIFFERENT") if row.dtype == "float32" else ""
        counts = (f"{count} of {row.pictures}" for count in (row.reordered, row.renamed))
        table.add_row(row.dtype, f"{row.difference:.1e}", *counts, judged)
    console = output.console()
    console.print(table)
    if rows:
        pictures, scores = output.counted(rows[0].pictures, "picture"), output.counted(rows[0].scores, "score")
        console.print(f"{pictures}, {scores}", markup=False)
