"""Transformers' own pipeline for a checkpoint, with whose scores a worker's scores are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import transformers
from PIL import Image

from producer.errors import UsageError
from worker.model.devices import compute_exactly, pick_device
from worker.model.interface import ModelLoadError
from worker.model.refusals import quiet

#: A function of an image file, labels and a template, which returns a score for each label. The pipeline opens the file
#: itself, so that differences between the decoders show too.
Reference = Callable[[Path, Sequence[str], str], list[float]]


def load_reference(model: str, *, revision: str | None, device: str) -> Reference:
    """Load ``pipeline("zero-shot-image-classification")`` in float32.

    Raises:
        ModelLoadError: Transformers cannot load such a pipeline for this checkpoint.
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
                # Without this, the pipeline asks at the terminal whether it may run the checkpoint's own code.
                trust_remote_code=False,
                use_fast=False,  # Pillow's image processor, which a worker uses too
            )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelLoadError(
            f"Transformers cannot load a zero-shot pipeline for {model} ({type(error).__name__}), so the worker's "
            "scores cannot be compared."
        ) from None

    def score(file: Path, labels: Sequence[str], template: str) -> list[float]:
        try:
            answers = pipeline(str(file), candidate_labels=list(labels), hypothesis_template=template)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise UsageError(f"{str(file)!r} cannot be opened by the pipeline ({type(error).__name__}).") from None
        found = {answer["label"]: answer["score"] for answer in answers}
        return [found[label] for label in labels]

    return score
