"""What every step of a run is given."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

#: Checkpoints of full size, and what a quick run has in their place.
FULL: Final = ("clip-vit-b32", "clip-vit-l14")
QUICK: Final = ("clip",)
#: Another process is making it: ViT-L/14 takes some 20 s.
CHECKPOINT_S: Final = 120.0


@dataclass(frozen=True)
class Given:
    """One run.

    Attributes:
        device: as ``NAMESHOT_DEVICE``.
        quick: small models and short measurements, to try the code itself.
        folder: for checkpoints, which are kept, and what steps write.
    """

    device: str
    quick: bool
    folder: str

    @property
    def on_gpu(self) -> bool:
        """Whether the device is one."""
        return self.device != "cpu"

    @property
    def models(self) -> tuple[str, ...]:
        """Names of `tests.model.checkpoints.RECIPES`: the smaller one first."""
        return QUICK if self.quick else FULL

    @property
    def batches(self) -> tuple[int, ...]:
        """Sizes that are measured; the first is what a worker would take by itself."""
        return (8, 16) if self.quick else (64, 256, 512)

    def seconds(self, full: float) -> float:
        """Of one measurement."""
        return min(full, 0.3) if self.quick else full

    def checkpoint(self, family: str) -> Path:
        """The folder of one, once it is there: processes of this run make them."""
        folder = Path(self.folder) / family
        deadline_s = time.monotonic() + CHECKPOINT_S
        while not (folder / "config.json").exists():
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"the checkpoint {family} was not made in {CHECKPOINT_S:.0f} s")
            time.sleep(0.1)
        return folder

    def make_checkpoint(self, family: str) -> None:
        """Make it where it is missing; others see all of it or nothing."""
        from tests.model.checkpoints import make_checkpoint

        folder = Path(self.folder) / family
        if not (folder / "config.json").exists():
            half = folder.with_name(f"{family}.{os.getpid()}")
            make_checkpoint(family, half)
            half.rename(folder)

    def to_json(self) -> str:
        """For another process; `given_from` reads it."""
        return json.dumps(asdict(self))


def given_from(text: str) -> Given:
    """From what `Given.to_json` made."""
    return Given(**json.loads(text))
