"""Where a model runs and in which numbers."""

import re
from collections.abc import Callable
from typing import Final

import torch

from worker.model.interface import ModelLoadError
from worker.model.nvidia import sign_of_nvidia

_DTYPES: Final = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# The first GPUs with tensor cores, Volta; older ones have float16, but no speed in it.
_HALF_PRECISION: Final = (7, 0)


def pick_device(wanted: str, sign_of_gpu: Callable[[], str | None] = sign_of_nvidia) -> torch.device:
    """The device that `auto`, `cpu`, `cuda` or `cuda:N` means here.

    `auto` means the CPU only where nothing shows a GPU: one that is there and cannot be used is an operator's mistake,
    or has just been lost, and a worker on the CPU in its place would be a hundred times slower without a word.

    Args:
        sign_of_gpu: what shows that a GPU is there, if anything does.

    Raises:
        ModelLoadError: it is none of these, or not in this machine, or `auto` and PyTorch cannot use the GPU.
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
            f"device {wanted!r} was asked for, but PyTorch {torch.__version__} finds no CUDA device "
            f"({_why_no_gpu()}): install a PyTorch built for CUDA and the driver that it needs, or use cpu"
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


def compute_exactly() -> None:
    """Have this process compute float32 in float32: by default a GPU's convolutions round what they get to TF32.

    That moved scores by up to 3e-4, where 1e-5 is promised, and embeddings in float32 are shared with CPUs. The few
    convolutions of these models cost no time that could be measured.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def visible_gpus() -> int:
    """How many CUDA devices PyTorch sees, with ``CUDA_VISIBLE_DEVICES`` honoured."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _why_no_gpu() -> str:
    """What PyTorch says when it is told to use one."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]  # PyTorch's own
    except Exception as failure:  # of several kinds
        line = str(failure).strip().partition("\n")[0]
        return line.partition(". ")[0][:200].rstrip(".") or type(failure).__name__
    return "it has no devices"
