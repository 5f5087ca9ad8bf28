"""Scores pictures with a loaded model, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from producer.contract.labels import fill
from producer.errors import InvalidJob, JobFailed, UsageError
from worker.decoding.images import open_image
from worker.embeddings.reading import mean_of
from worker.model.interface import Model, ModelError
from worker.ranking import scores

#: This many prompts are embedded at once.
PROMPTS: Final = 64


def read_picture(path: Path, *, max_pixels: int) -> Image.Image:
    """Decode a local file as a worker decodes a download.

    Raises:
        UsageError: the file cannot be read or decoded.
    """
    try:
        return open_image(path.read_bytes(), max_pixels=max_pixels).decode().image
    except OSError as error:
        raise UsageError(f"{str(path)!r} cannot be read: {error.strerror}.") from None
    except JobFailed as error:
        raise UsageError(f"{str(path)!r}: {error.message}") from None


class Scorer:
    """A model and the candidate labels that it scores pictures against.

    Raises:
        InvalidJob: a label inside its template has more tokens than the model reads, or a token that it does not know.
    """

    def __init__(self, model: Model, labels: Sequence[str], templates: Sequence[str]) -> None:
        self._model = model
        self._labels = _label_vectors(model, labels, templates)

    def __call__(self, image: Image.Image) -> NDArray[np.float64]:
        """Compute the scores of a decoded image over all labels, shape (k,)."""
        [vectors] = self._model.embed_images([self._model.prepare(image)])
        return scores(self._model.logits(vectors, self._labels), self._model.scoring)


def _label_vectors(model: Model, labels: Sequence[str], templates: Sequence[str]) -> NDArray[np.float32]:
    """Return the unit vectors of the labels, (k, d), each averaged over the templates as in a worker."""
    prompts = [fill(template, label) for template in templates for label in labels]
    for prompt, tokens in zip(prompts, model.count_tokens(prompts), strict=True):
        if tokens > model.max_tokens:
            raise InvalidJob(
                f"{prompt!r} has {tokens} tokens, but {model.name} reads only {model.max_tokens}; shorten the label."
            )
    try:
        parts = [model.embed_texts(prompts[start : start + PROMPTS]) for start in range(0, len(prompts), PROMPTS)]
    except ModelError as error:
        raise InvalidJob(f"{model.name} cannot process one of the labels: {error}.") from None
    each = np.concatenate(parts).reshape(len(templates), len(labels), -1)
    return np.stack([mean_of(list(of_label)) for of_label in each.swapaxes(0, 1)])
