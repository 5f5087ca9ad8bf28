"""Runs one step in this process: ``python -m benchmarks.first_gpu.step NAME GIVEN NOTES``."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from benchmarks.first_gpu.given import given_from
from benchmarks.first_gpu.notes import Notes


def main() -> None:
    """Run the step; if it raises an exception, it has failed."""
    name, text, notes = sys.argv[1:]
    given = given_from(text)
    if given.on_gpu:
        import torch

        torch.cuda.set_device(given.device)  # PyTorch creates streams and graphs on the current device
    import_module(f"benchmarks.first_gpu.{name}").run(given, Notes(Path(notes)))


if __name__ == "__main__":
    main()
