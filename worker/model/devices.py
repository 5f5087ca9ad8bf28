"""Where a model runs and in which numbers."""

import re
from typing import Final

import torch

from worker.model.interface import ModelLoadError

_DTYPES: Final = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# The first GPUs with tensor cores, Volta; older ones have float16, but no speed in it.
_HALF_PRECISION: Final = (7, 0)


def pick_device(wanted: str) -> torch.device:
    """The device that `auto`, `cpu`, `cuda` or `cuda:N` means here.

    Raises:
        ModelLoadError: it is none of these, or not in this machine.
    """
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", wanted)
    if match is None:
        raise ModelLoadError(f"there is no device {wanted!r}: use auto, cpu, cuda or cuda:N")
    if wanted == "cpu":
        return torch.device("cpu")
    found = visible_gpus()
    if found == 0:
        raise ModelLoadError(
            f"device {wanted!r} was asked for, but PyTorch {torch.__version__} finds no CUDA device: use cpu or auto, "
            "or install a PyTorch built for CUDA and the driver"
        )
    index = int(match[1] or 0)
    if index >= found:
        raise ModelLoadError(f"device {wanted!r} was asked for, but there are {found}: use cuda:0 to cuda:{found - 1}")
    return torch.device("cuda", index)


def pick_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """The numbers that `auto` or a name means on this device.

    Half precision is float16: it has three bits more than bfloat16, which scores are worth, and these models are
    published in it.

    Raises:
        ModelLoadError: no such name.
    """
    if wanted == "auto":
        fast = device.type == "cuda" and torch.cuda.get_device_capability(device) >= _HALF_PRECISION
        return torch.float16 if fast else torch.float32
    if wanted not in _DTYPES:
        raise ModelLoadError(f"there is no dtype {wanted!r}: use auto, {', '.join(_DTYPES)}")
    return _DTYPES[wanted]


def visible_gpus() -> int:
    """How many CUDA devices PyTorch sees, with ``CUDA_VISIBLE_DEVICES`` honoured."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0
