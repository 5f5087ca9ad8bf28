"""Chooses a model's device and dtype."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import torch

from worker.model.interface import ModelLoadError
from worker.model.nvidia import sign_of_nvidia

_DTYPES: Final = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
#: The compute capability of Volta, the first GPUs with tensor cores; float16 makes older GPUs no faster.
_HALF_PRECISION: Final = (7, 0)


def pick_device(wanted: str, sign_of_gpu: Callable[[], str | None] = sign_of_nvidia) -> torch.device:
    """Return the device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    ``auto`` means the CPU only if there is no evidence of a GPU. A GPU that PyTorch cannot use is misconfigured or was
    just lost, and a worker that used the CPU instead would silently be a hundred times slower.

    Args:
        sign_of_gpu: returns a clause that names evidence of a GPU; None if there is no evidence.

    Raises:
        ModelLoadError: the name is unknown, the device is absent, or PyTorch finds no GPU despite evidence of one.
    """
    match = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?", wanted)
    if match is None:
        raise ModelLoadError(f"there is no device {wanted!r}: use auto, cpu, cuda or cuda:N")
    if wanted == "cpu":
        return torch.device("cpu")
    found = visible_gpus()
    if found == 0 and wanted == "auto":
        if (sign := sign_of_gpu()) is None:
            return torch.device("cpu")
        raise ModelLoadError(
            f"the device is chosen automatically and {sign}, but PyTorch {torch.__version__} finds no CUDA device "
            f"({_why_no_gpu()}): install a PyTorch built for CUDA and the driver that it needs, or set "
            "NAMESHOT_DEVICE=cpu to work without the GPU"
        )
    if found == 0:
        raise ModelLoadError(
            f"device {wanted!r} was requested, but PyTorch {torch.__version__} finds no CUDA device "
            f"({_why_no_gpu()}): install a PyTorch built for CUDA and the driver that it needs, or use cpu"
        )
    index = int(match[1] or 0)
    if index >= found:
        raise ModelLoadError(f"device {wanted!r} was requested, but {found} exist: use cuda:0 to cuda:{found - 1}")
    return torch.device("cuda", index)


def pick_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """Return the dtype that ``auto`` or a name means on this device.

    On a GPU with tensor cores ``auto`` means float16, because it has three bits of precision more than bfloat16, and
    because these models are published in it.

    Raises:
        ModelLoadError: the name is unknown.
    """
    if wanted == "auto":
        fast = device.type == "cuda" and torch.cuda.get_device_capability(device) >= _HALF_PRECISION
        return torch.float16 if fast else torch.float32
    if wanted not in _DTYPES:
        raise ModelLoadError(f"there is no dtype {wanted!r}: use auto, {', '.join(_DTYPES)}")
    return _DTYPES[wanted]


def compute_exactly() -> None:
    """Disable TF32 in this process: by default a GPU's float32 convolutions round their inputs to TF32.

    TF32 changed scores by up to 3e-4, but nameshot promises 1e-5 and shares float32 embeddings between GPUs and CPUs.
    These models have few convolutions, so the loss of speed is not measurable.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def visible_gpus() -> int:
    """Return the number of CUDA devices that PyTorch sees, which depends on ``CUDA_VISIBLE_DEVICES``."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _why_no_gpu() -> str:
    """Return the first sentence of the error that PyTorch raises when it initialises CUDA."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]  # PyTorch's own
    except Exception as failure:  # PyTorch raises several kinds
        line = str(failure).strip().partition("\n")[0]
        return line.partition(". ")[0][:200].rstrip(".") or type(failure).__name__
    return "it has no devices"
