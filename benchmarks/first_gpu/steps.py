"""The steps of a run, in the order of what they are worth: one that overruns its time costs those at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: All together on a GPU; a lease of a quarter of an hour then has room for its transfers, and for a second try.
TOTAL_S: Final = 380.0
#: A quick run: two minutes on two cores, and far more where others have them.
QUICK_TOTAL_S: Final = 1_800.0
#: Of each step then: nearly all of it is the start of processes that load PyTorch.
QUICK_LIMIT_S: Final = 300.0


@dataclass(frozen=True)
class Step:
    """One part of a run.

    Attributes:
        name: of its module in this package, whose ``run(given, notes)`` it is.
        limit_s: after so long it is cut off.
        about: what it finds out.
    """

    name: str
    limit_s: float
    about: str


STEPS: Final = (
    Step("facts", 30, "versions, the GPU, what is installed"),
    Step("parity", 60, "scores beside the pipeline's, in float32 and float16"),
    Step("forward", 60, "the bare forward pass, `embed_images`, and what a batch's time goes to"),
    Step("stalls", 40, "first batches of each size: with cuDNN's attention and without"),
    Step("engines", 120, "images/s through the engine, by fronts"),
    Step("system", 90, "images/s from HTTP to result"),
    Step("memory", 45, "a batch that does not fit"),
    Step("lost", 50, "an image that breaks the device, with --processes"),
    Step("lost_worker", 60, "a label that breaks the device, in a worker of its own"),
)
