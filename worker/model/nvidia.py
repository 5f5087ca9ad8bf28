"""Detects an NVIDIA GPU or its driver without PyTorch, which may be unable to use it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

#: With these values of ``CUDA_VISIBLE_DEVICES`` a process sees no GPU; PyTorch interprets them likewise.
_HIDDEN: Final = frozenset({"", "-1"})


def sign_of_nvidia(
    environment: Mapping[str, str] = os.environ, devices: Path = Path("/dev"), tool: str = "nvidia-smi"
) -> str | None:
    """Return a clause that names evidence of a GPU; None if there is none, or ``CUDA_VISIBLE_DEVICES`` hides all GPUs.

    Args:
        environment: the process's environment; its ``PATH`` is searched for the tool.
        devices: the folder of the driver's device files.
        tool: the name of the driver's own program.
    """
    if environment.get("CUDA_VISIBLE_DEVICES", "all").strip() in _HIDDEN:
        return None
    if found := sorted(devices.glob("nvidia*")):
        return f"{found[0]} is here"
    if shutil.which(tool, path=environment.get("PATH")):
        return f"{tool} is installed here"
    return None
