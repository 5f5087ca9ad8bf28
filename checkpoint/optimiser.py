"""Muon for the matrices of the vision tower, AdamW for all other parameters.

Muon (Keller Jordan, 2024) steps along the momentum made orthogonal, so that rare directions learn as fast as common
ones, for a fifth more arithmetic. PyTorch's own computes in bfloat16, which processors without that arithmetic do
slowly; this one computes in float32.
"""

from collections.abc import Iterable
from typing import Final

import torch

# The quintic of the original: it drives every singular value towards 1 in five rounds, roughly.
_COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)
_ROUNDS: Final = 5
_MOMENTUM: Final = 0.95
# Gives an update the size that AdamW's has, so that both share one learning rate (Moonlight, 2025).
_ADAM_LIKE: Final = 0.2


class Muon(torch.optim.Optimizer):
    """For float32 matrices only.

    Args:
        matrices: float32 (rows, columns) each.
        lr: learning rate, on AdamW's scale.
        weight_decay: decoupled, as AdamW's.
    """

    def __init__(self, matrices: Iterable[torch.nn.Parameter], *, lr: float, weight_decay: float) -> None:
        super().__init__(list(matrices), {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every matrix."""
        if closure is not None:
            raise ValueError("no closure is called")
        for group in self.param_groups:
            for matrix in group["params"]:
                momentum = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
                momentum.lerp_(matrix.grad, 1 - _MOMENTUM)
                update = _orthogonal(torch.lerp(matrix.grad, momentum, _MOMENTUM))
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-group["lr"] * _ADAM_LIKE * max(matrix.shape) ** 0.5)


def _orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """The same singular vectors with singular values of about 1, by Newton and Schulz."""
    first, second, third = _COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    result: torch.Tensor = matrix.T if tall else matrix
    result = result / (result.norm() + 1e-7)
    for _ in range(_ROUNDS):
        square = result @ result.T
        result = first * result + (second * square + third * square @ square) @ result
    return result.T if tall else result
