"""The two trials: two checkpoints against each other, and one against Transformers' pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from producer.errors import UsageError
from worker.decoding.images import prepare_pillow
from worker.engine.device import checkpoint
from worker.model import Model, load_model
from worker.model.interface import ModelError
from worker.ranking import rank
from worker.trial.scoring import Scorer, read_picture

#: Scores in float32 that differ by at most this count as equal: see docs/equal-scores.md.
EQUAL: Final = 1e-5
#: Labels whose scores in the pipeline differ by at most this may be in another order.
TIE: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Choice:
    """A checkpoint, and how to run it: see the settings of the same names."""

    model: str
    revision: str | None
    device: str
    max_pixels: int


def unusable(files: Sequence[Path], *, max_pixels: int) -> dict[Path, UsageError]:
    """Return the files that cannot be read or decoded, each with the reason."""
    prepare_pillow(max_pixels)
    found = {}
    for file in files:
        try:
            read_picture(file, max_pixels=max_pixels)
        except UsageError as error:
            found[file] = error
    return found


def rankings(
    choice: Choice, dtype: str, files: Sequence[Path], labels: Sequence[str], templates: Sequence[str]
) -> list[list[tuple[str, float]]]:
    """Load a checkpoint, and return the ranking of the labels for each file.

    Raises:
        UsageError: the checkpoint or a file cannot be used.
    """
    prepare_pillow(choice.max_pixels)
    score = Scorer(_loaded(choice, dtype), labels, templates)
    found = []
    for file in files:
        values = score(read_picture(file, max_pixels=choice.max_pixels))
        found.append([(each.label, each.score) for each in rank(labels, values, None)])
    return found


@dataclass(frozen=True, slots=True)
class Verdict:
    """How scores in one precision compare with those of Transformers' pipeline in float32.

    Attributes:
        dtype: the precision of the forward pass.
        pictures: how many pictures were compared.
        scores: how many scores were compared.
        difference: the largest difference between a score and the pipeline's.
        reordered: how many pictures have their labels in another order.
        renamed: how many pictures have another best label.
    """

    dtype: str
    pictures: int
    scores: int
    difference: float
    reordered: int
    renamed: int

    @property
    def is_equal(self) -> bool:
        """Whether the scores equal the pipeline's, and the labels are in the same order."""
        return self.difference <= EQUAL and not self.reordered

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "dtype": self.dtype,
            "pictures": self.pictures,
            "scores": self.scores,
            "largest_difference": self.difference,
            "reordered": self.reordered,
            "other_best_label": self.renamed,
            "equal": self.is_equal,
        }


def verdicts(
    choice: Choice, files: Sequence[Path], labels: Sequence[str], template: str, dtypes: Sequence[str]
) -> Iterator[Verdict]:
    """Compare the worker's scores in each of ``dtypes`` with the pipeline's in float32, on the same device.

    Raises:
        UsageError: the checkpoint or a file cannot be used.
    """
    from worker.model.reference import load_reference

    prepare_pillow(choice.max_pixels)
    images = [read_picture(file, max_pixels=choice.max_pixels) for file in files]
    theirs: list[NDArray[np.float64]] = []
    for dtype in dtypes:
        # The worker's loader is called before the pipeline's, because its errors say best why a checkpoint fails.
        score = Scorer(_loaded(choice, dtype), labels, [template])
        ours = [score(image) for image in images]
        if not theirs:
            try:
                reference = load_reference(checkpoint(choice.model), revision=choice.revision, device=choice.device)
            except ModelError as error:
                raise UsageError(f"{error}") from None
            theirs = [np.array(reference(file, labels, template)) for file in files]
        pairs = list(zip(ours, theirs, strict=True))
        yield Verdict(
            dtype,
            len(images),
            len(images) * len(labels),
            max(float(np.abs(mine - other).max()) for mine, other in pairs),
            sum(_is_reordered(mine, other) for mine, other in pairs),
            sum(int(mine.argmax() != other.argmax()) for mine, other in pairs),
        )


def _is_reordered(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> bool:
    in_our_order = theirs[np.argsort(-ours, kind="stable")]
    return bool((np.diff(in_our_order) > TIE).any())


def _loaded(choice: Choice, dtype: str) -> Model:
    try:
        model = load_model(checkpoint(choice.model), revision=choice.revision, device=choice.device, dtype=dtype)
        model.warm_up()
    except ModelError as error:
        raise UsageError(f"{error}") from None
    return model
