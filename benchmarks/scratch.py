"""What benchmarks make once and keep, outside of git."""

from __future__ import annotations

from pathlib import Path

from tests.model.checkpoints import make_checkpoint

FOLDER = Path(__file__).parent / ".scratch"
#: The geometry that most people run, and that fits a CPU.
VIT_B32 = "clip-vit-b32"


def checkpoint(family: str = VIT_B32) -> Path:
    """The folder of a checkpoint of that geometry with random weights; made where it is missing (ViT-B/32: 600 MB)."""
    folder = FOLDER / family
    if not (folder / "config.json").exists():
        make_checkpoint(family, folder)
    return folder
