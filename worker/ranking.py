"""From logits to the ranking a job is answered with: numpy on the host, in the job's own thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from producer.contract import Score, scores_of

Scoring = Literal["softmax", "sigmoid"]


def scores(logits: NDArray[np.float32], scoring: Scoring) -> NDArray[np.float64]:
    """Turn one image's logits over its own labels, shape (k,), into scores in [0, 1] of the same shape.

    Softmax for models trained with a contrastive loss, sigmoid for those trained pair by pair (SigLIP), as the
    transformers pipeline does. In float64, so that 1,000 labels lose nothing.
    """
    values = logits.astype(np.float64)
    if scoring == "sigmoid":
        # exp of a non-positive number only: never overflows.
        decayed = np.exp(-np.abs(values))
        return np.where(values >= 0, 1.0, decayed) / (1.0 + decayed)
    weights = np.exp(values - values.max())
    return np.asarray(weights / weights.sum())


def rank(labels: Sequence[str], label_scores: NDArray[np.float64], top_k: int | None) -> list[Score]:
    """The labels by descending score, the best ``top_k`` of them; equal scores keep the labels' order."""
    # Ties are judged at the model's own precision: float64 noise below it must not reorder equal labels.
    order = np.argsort(-label_scores.astype(np.float32), kind="stable")[:top_k]
    names = map(labels.__getitem__, order.tolist())
    return scores_of(zip(names, label_scores[order].tolist(), strict=True))
