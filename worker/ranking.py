"""Computes a job's ranking from logits, with numpy on the CPU, in the job's own thread."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from producer.contract.result import Score, scores_of
from worker.model.interface import Scoring


def scores(logits: NDArray[np.float32], scoring: Scoring) -> NDArray[np.float64]:
    """Return the scores in [0, 1] for one image's logits; both have the shape (k,), for the job's k labels.

    Like the transformers pipeline, this uses softmax for models trained with a contrastive loss, and sigmoid for those
    trained pair by pair (SigLIP). It computes in float64, so that a softmax across up to 1,000 labels loses no
    precision.
    """
    values = logits.astype(np.float64)
    if scoring == "sigmoid":
        # The exponents are never positive, so exp cannot overflow.
        decayed = np.exp(-np.abs(values))
        return np.where(values >= 0, 1.0, decayed) / (1.0 + decayed)
    weights = np.exp(values - values.max())
    return np.asarray(weights / weights.sum())


def rank(labels: Sequence[str], label_scores: NDArray[np.float64], top_k: int | None) -> list[Score]:
    """Return the best ``top_k`` labels, or all if None, by descending score; equal scores keep the labels' order."""
    # Sort the float64 scores that the client sees: in float32, two different scores could be equal, and `top_k` could
    # drop the better label.
    order = np.argsort(-label_scores, kind="stable")[:top_k]
    names = map(labels.__getitem__, order.tolist())
    return scores_of(zip(names, label_scores[order].tolist(), strict=True))
