"""What one image's vectors and some prompts' vectors say of each other: numpy on the host, in any process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Logits:
    """`cosine * scale + bias`, of the best of the image's vectors where there are several."""

    scale: float
    bias: float

    def __call__(
        self, image: npt.NDArray[np.floating[Any]], texts: npt.NDArray[np.floating[Any]]
    ) -> npt.NDArray[np.float32]:
        """As `worker.model.interface.HostModel.logits`."""
        # einsum and not matmul: BLAS would wake threads of its own, against those of the forward pass.
        cosines = np.einsum("qd,kd->qk", np.atleast_2d(image), texts).max(axis=0)
        logits: npt.NDArray[np.float32] = (cosines * self.scale + self.bias).astype(np.float32)
        return logits
