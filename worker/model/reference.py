"""Transformers' own pipeline for a checkpoint: what its scores are compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import transformers
from PIL import Image

from worker.model.devices import compute_exactly, pick_device
from worker.model.interface import ModelLoadError
from worker.model.refusals import quiet

#: A function of a decoded image, labels and a template, which returns a score for each label.
Reference = Callable[[Image.Image, Sequence[str], str], list[float]]


def load_reference(model: str, *, revision: str | None, device: str) -> Reference:
    """Load ``pipeline("zero-shot-image-classification")`` in float32.

    Raises:
        ModelLoadError: Transformers has no such pipeline for this checkpoint.
    """
    compute_exactly()
    try:
        with quiet():
            pipeline = transformers.pipeline(
                "zero-shot-image-classification",
                model=model,
                revision=revision,
                device=pick_device(device),
                dtype=torch.float32,
                use_fast=False,  # Pillow's image processor, which a worker uses too
            )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelLoadError(
            f"Transformers has no zero-shot pipeline for {model} ({type(error).__name__}); there is nothing to "
            "compare its scores with."
        ) from None

    def score(image: Image.Image, labels: Sequence[str], template: str) -> list[float]:
        answers = pipeline(image, candidate_labels=list(labels), hypothesis_template=template)
        found = {answer["label"]: answer["score"] for answer in answers}
        return [found[label] for label in labels]

    return score
