"""Turns logits into a job's ranking, with numpy on the host, in the job's own thread."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from producer.contract.result import Score, scores_of
from worker.model.interface import Scoring


def scores(logits: NDArray[np.float32], scoring: Scoring) -> NDArray[np.float64]:
    """Turn one image's logits over its own labels, shape (k,), into scores in [0, 1] of the same shape.

    Softmax for models trained with a contrastive loss, sigmoid for those trained pair by pair (SigLIP), as the
    transformers pipeline does. In float64, so that scores over 1,000 labels lose no precision.
    """
    values = logits.astype(np.float64)
    if scoring == "sigmoid":
        # exp of a non-positive number never overflows.
        decayed = np.exp(-np.abs(values))
        return np.where(values >= 0, 1.0, decayed) / (1.0 + decayed)
    weights = np.exp(values - values.max())
    return np.asarray(weights / weights.sum())


def rank(labels: Sequence[str], label_scores: NDArray[np.float64], top_k: int | None) -> list[Score]:
    """Return the best ``top_k`` labels by descending score (None: all); equal scores keep the labels' order."""
    # Compare what is shown: float32 would call scores equal that differ, and `top_k` could drop the better one.
    order = np.argsort(-label_scores, kind="stable")[:top_k]
    names = map(labels.__getitem__, order.tolist())
    return scores_of(zip(names, label_scores[order].tolist(), strict=True))
