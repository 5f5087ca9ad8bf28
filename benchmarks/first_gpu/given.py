"""The parameters of a run, which every step receives."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

#: The checkpoints of a full run, and the small one of a quick run.
FULL: Final = ("clip-vit-b32", "clip-vit-l14")
QUICK: Final = ("clip",)
#: A step waits this long for a checkpoint that another process makes; ViT-L/14 takes some 20 s.
CHECKPOINT_S: Final = 120.0


@dataclass(frozen=True)
class Given:
    """The parameters of one run.

    Attributes:
        device: as ``NAMESHOT_DEVICE``.
        quick: whether models are small and measurements short, to try the code itself.
        folder: the folder for checkpoints, which are kept, and for files of the steps.
    """

    device: str
    quick: bool
    folder: str

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device != "cpu"

    @property
    def models(self) -> tuple[str, ...]:
        """The models' names in `tests.model.checkpoints.RECIPES`, the smaller model first."""
        return QUICK if self.quick else FULL

    @property
    def batches(self) -> tuple[int, ...]:
        """The batch sizes to measure; the first is the size that a worker would choose."""
        return (8, 16) if self.quick else (64, 256, 512)

    def seconds(self, full: float) -> float:
        """Return the duration of one measurement: ``full`` seconds, or less in a quick run."""
        return min(full, 0.3) if self.quick else full

    def checkpoint(self, family: str) -> Path:
        """Wait until another process of this run has made a checkpoint, and return its folder."""
        folder = Path(self.folder) / family
        deadline_s = time.monotonic() + CHECKPOINT_S
        while not (folder / "config.json").exists():
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"the checkpoint {family} was not made in {CHECKPOINT_S:.0f} s")
            time.sleep(0.1)
        return folder

    def make_checkpoint(self, family: str) -> None:
        """Make a checkpoint if it is missing; other processes see all of its files or none."""
        from tests.model.checkpoints import make_checkpoint

        folder = Path(self.folder) / family
        if not (folder / "config.json").exists():
            half = folder.with_name(f"{family}.{os.getpid()}")
            make_checkpoint(family, half)
            half.rename(folder)

    def to_json(self) -> str:
        """Return the parameters as JSON for another process, which calls `given_from`."""
        return json.dumps(asdict(self))


def given_from(text: str) -> Given:
    """Read the result of `Given.to_json`."""
    return Given(**json.loads(text))
