"""An image tower recorded as one graph, so that a forward pass takes Python's lock once and not for every layer.

While a batch runs, other threads of the worker fetch, decode and store. Run layer by layer, the forward pass asks for
the lock hundreds of times and queues behind each of them: on two cores that cost a seventh of the throughput.
"""

import logging
import warnings
from collections.abc import Mapping
from typing import Any, Final

import torch

from worker.model.families import Family, Network

logger = logging.getLogger(__name__)

INPUT: Final = "pixel_values"
#: Images in the batch that is recorded, and in those that the recording is compared with the network on.
_RECORDED: Final = 2
_PROBES: Final = (1, 3)
#: Both run the same kernels: a difference beyond rounding means that something was recorded as a constant.
_RTOL: Final = 1e-5
_ATOL: Final = 1e-6


class TracedTower:
    """Image vectors of a network: from its recording where that is known to be the same, otherwise from itself.

    Only a network whose sole input is pixels is recorded, and only for one height and width: masks and sizes are
    where a recording could go wrong without a sign.
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
        """Record the tower for images of this shape, (1, channels, height, width), if that works and is exact."""
        noise = torch.Generator().manual_seed(0)
        recorded, *probes = [
            torch.randn((count, *pixels.shape[1:]), generator=noise).to(pixels.device, pixels.dtype)
            for count in (_RECORDED, *_PROBES)
        ]
        try:
            with warnings.catch_warnings(), torch.inference_mode():
                # That tracing is deprecated, and what it thinks of each branch in the network's code: what it
                # recorded is compared below, and where PyTorch no longer has it the network itself runs.
                warnings.simplefilter("ignore")
                # PyTorch's own function has no types
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
        """(n, d) or (n, q, d), not normalised."""
        if self._traced is not None and tuple(inputs[INPUT].shape[1:]) == self._shape:
            vectors: torch.Tensor = self._traced(inputs[INPUT])
        else:
            vectors = self._family.image_vectors(self._network, inputs)
        return vectors

    def _run(self, pixel_values: torch.Tensor) -> torch.Tensor:
        vectors: torch.Tensor = self._family.image_vectors(self._network, {INPUT: pixel_values})
        return vectors
