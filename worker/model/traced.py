"""Records an image tower as one graph, so that a forward pass acquires Python's lock once instead of in every layer.

While a batch runs, other threads of the worker download, decode and store answers. Without a recording, the forward
pass acquires the lock hundreds of times and waits for those threads, which on two cores costs a seventh of the
throughput.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from typing import Any, Final

import torch

from worker.model.families import Family, Network

logger = logging.getLogger(__name__)

INPUT: Final = "pixel_values"
#: The recorded batch has this many images; the recording and the network are compared on batches of other sizes.
_RECORDED: Final = 2
_PROBES: Final = (1, 3)
#: Recording and network run the same kernels, so a larger difference means that tracing made a variable a constant.
_RTOL: Final = 1e-5
_ATOL: Final = 1e-6


class TracedTower:
    """Computes image vectors by a recording of the network if it is known to be exact, otherwise by the network.

    Only a network whose sole input is pixels is recorded, and only for one height and width, because a recording that
    also depended on masks or sizes could be wrong without an error.
    """

    def __init__(self, network: Network, family: Family) -> None:
        self._network = network
        self._family = family
        self._traced: Any = None
        self._shape: tuple[int, ...] = ()

    @property
    def traced(self) -> bool:
        """Whether a recording is in use."""
        return self._traced is not None

    def trace(self, pixels: torch.Tensor) -> None:
        """Record the tower for images of this shape, (1, channels, height, width); use the recording if it is exact."""
        noise = torch.Generator().manual_seed(0)
        recorded, *probes = [
            torch.randn((count, *pixels.shape[1:]), generator=noise).to(pixels.device, pixels.dtype)
            for count in (_RECORDED, *_PROBES)
        ]
        try:
            with warnings.catch_warnings(), torch.inference_mode():
                # PyTorch warns about each branch in the network's code, but the comparison below finds wrong
                # recordings. It also warns that tracing is deprecated; without tracing the network itself runs.
                warnings.simplefilter("ignore")
                # PyTorch publishes no types for this function.
                recording = torch.jit.trace(self._run, (recorded,), check_trace=False)  # type: ignore[no-untyped-call]
                same = all(
                    torch.allclose(recording(probe), self._run(probe), rtol=_RTOL, atol=_ATOL) for probe in probes
                )
        except Exception as failure:  # PyTorch raises nearly every kind; the network itself still runs
            logger.debug("the image tower cannot be recorded: %s", type(failure).__name__)
            return
        if same:
            self._traced, self._shape = recording, tuple(pixels.shape[1:])

    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return image vectors, (n, d) or (n, q, d), not normalised."""
        if self._traced is not None and tuple(inputs[INPUT].shape[1:]) == self._shape:
            vectors: torch.Tensor = self._traced(inputs[INPUT])
        else:
            vectors = self._family.image_vectors(self._network, inputs)
        return vectors

    def _run(self, pixel_values: torch.Tensor) -> torch.Tensor:
        vectors: torch.Tensor = self._family.image_vectors(self._network, {INPUT: pixel_values})
        return vectors
