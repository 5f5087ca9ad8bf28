"""What shows that this machine has an NVIDIA GPU or its driver, whether or not PyTorch can use it; needs no PyTorch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

#: What says that a process is to see no GPU; PyTorch reads the same.
_HIDDEN: Final = frozenset({"", "-1"})


def sign_of_nvidia(
    environment: Mapping[str, str] = os.environ, devices: Path = Path("/dev"), tool: str = "nvidia-smi"
) -> str | None:
    """What was found, for a sentence; None where there is nothing, or where ``CUDA_VISIBLE_DEVICES`` hides all GPUs.

    Args:
        environment: its ``PATH`` is searched.
        devices: where the driver puts its device files.
        tool: the driver's own program.
    """
    if environment.get("CUDA_VISIBLE_DEVICES", "all").strip() in _HIDDEN:
        return None
    if found := sorted(devices.glob("nvidia*")):
        return f"{found[0]} is here"
    if shutil.which(tool, path=environment.get("PATH")):
        return f"{tool} is installed here"
    return None
