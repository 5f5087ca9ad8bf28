"""Checkpoints that benchmarks create once and keep outside git."""

from __future__ import annotations

from pathlib import Path

from tests.model.checkpoints import make_checkpoint

FOLDER = Path(__file__).parent / ".scratch"
#: This is the most common architecture that is small enough for a CPU.
VIT_B32 = "clip-vit-b32"


def checkpoint(family: str = VIT_B32) -> Path:
    """Return the folder of a checkpoint with random weights; create it if it is missing (ViT-B/32 has 600 MB)."""
    folder = FOLDER / family
    if not (folder / "config.json").exists():
        make_checkpoint(family, folder)
    return folder
