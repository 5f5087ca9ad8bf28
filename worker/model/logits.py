"""Computes the logits of an image's vectors against prompts' vectors, with numpy on the host, in any process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Logits:
    """``cosine * scale + bias``, with the best cosine if the image has several vectors.

    Attributes:
        scale: the factor of the cosine.
        bias: the summand.
    """

    scale: float
    bias: float

    def __call__(
        self, image: npt.NDArray[np.floating[Any]], texts: npt.NDArray[np.floating[Any]]
    ) -> npt.NDArray[np.float32]:
        """Compute (k,) float32 logits, see `worker.model.interface.HostModel.logits`."""
        # einsum instead of matmul, since BLAS threads would compete with those of the forward pass.
        cosines = np.einsum("qd,kd->qk", np.atleast_2d(image), texts).max(axis=0)
        logits: npt.NDArray[np.float32] = (cosines * self.scale + self.bias).astype(np.float32)
        return logits
