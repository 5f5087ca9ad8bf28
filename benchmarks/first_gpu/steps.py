"""The steps of a run, the most important first, because a step that overruns its time costs the last ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: The time limit of all steps together on a GPU.
TOTAL_S: Final = 380.0
#: The time limit of a quick run, which takes two minutes on two idle cores and far longer on busy ones.
QUICK_TOTAL_S: Final = 1_800.0
#: The time limit of each step of a quick run, which mostly starts processes that load PyTorch.
QUICK_LIMIT_S: Final = 300.0


@dataclass(frozen=True)
class Step:
    """One part of a run.

    Attributes:
        name: the name of the module in this package whose ``run(given, notes)`` is the step.
        limit_s: the time limit in seconds.
        about: what the step measures or tests.
    """

    name: str
    limit_s: float
    about: str


STEPS: Final = (
    Step("facts", 30, "versions, the GPU, what is installed"),
    Step("parity", 60, "scores compared with the pipeline's, in float32 and float16"),
    Step("forward", 60, "the bare forward pass, `embed_images`, and the parts of a batch's time"),
    Step("stalls", 40, "first batches of each size: with cuDNN's attention and without"),
    Step("engines", 120, "images/s through the engine, by fronts"),
    Step("system", 90, "images/s from HTTP to result"),
    Step("memory", 45, "a batch that does not fit"),
    Step("lost", 50, "an image that breaks the device, with --processes"),
    Step("lost_worker", 60, "a label that breaks the device, in a worker of its own"),
)
