"""Runs a forward pass and translates a failure: a smaller batch may fit, the input is at fault, or the device is lost.

PyTorch's exception classes do not distinguish these cases. One class covers all errors of the CUDA runtime, but only
some of those errors make every later call of the process fail. When memory runs out, the allocator, the runtime, the
driver, NVML, cuBLAS and cuDNN each raise a different error.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, TypeVar

import torch

from worker.model.interface import DeviceLostError, ModelError, ModelOutOfMemoryError
from worker.runtime.tracebacks import release_memory

T = TypeVar("T")

#: The code of cudaErrorMemoryAllocation and hipErrorOutOfMemory.
_OUT_OF_MEMORY: Final = 2
#: With these codes the device is absent (100, 101), not ready (802), unavailable (46) or in an unknown state (999); or,
#: in the words of the CUDA runtime's manual, "any further CUDA work will return the same error".
_STICKY: Final = frozenset(
    {46, 100, 101, 201, 214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 802, 999}
)
#: Errors without a code are recognised by their text. A full MIG slice and some containers fail with the NVML
#: assertion; cuBLAS and cuDNN fail if there is no memory for their handles and workspaces. An image ran without an
#: error at start, so after such an error the batch is too large, or another program uses the memory.
_MEMORY_WORDS: Final = re.compile(
    r"DefaultCPUAllocator"
    r"|out of memory"
    r"|NVML_SUCCESS == r"
    r"|(CUBLAS|CUDNN|CUSOLVER|CUSPARSE)_STATUS_(ALLOC_FAILED|NOT_INITIALIZED)"
    r"|(DEVICE|HOST)_ALLOCATION_FAILED"
    r"|unable to find an engine to execute this computation"
)


def forward_pass(run: Callable[[], T]) -> T:
    """Call `run` without gradients and return its result.

    If it fails, the layers' outputs are freed before the error is raised. A context manager in place of this function
    could not free them, because it would hold the traceback of the error.

    Raises:
        ModelError: the call failed; a subclass says how, as in `Model.embed_images`.
    """
    try:
        with torch.inference_mode():
            return run()
    except ModelError:
        raise
    except Exception as failure:  # PyTorch raises nearly every kind
        release_memory(failure)
        raise meaning_of(failure) from failure


def meaning_of(failure: Exception) -> ModelError:
    """Return what a failure of PyTorch means for further forward passes; if memory ran out, empty PyTorch's cache."""
    code = getattr(failure, "error_code", None)
    if code in _STICKY:
        return _lost()
    if _means_out_of_memory(failure, code):
        # PyTorch returns its cached blocks to the driver, so that other libraries and programs can use the memory.
        return (
            ModelOutOfMemoryError("the batch does not fit in the device's memory")
            if _still_runs(torch.cuda.empty_cache)
            else _lost()
        )
    if isinstance(failure, torch.AcceleratorError) and code is None and not _uses_a_gpu():
        return _lost()  # a device of another kind, whose state cannot be checked
    # cuBLAS and cuDNN report a lost device as an error of their own, and CUDA may have new codes.
    return ModelError("the forward pass failed") if _still_runs(torch.cuda.synchronize) else _lost()


def _means_out_of_memory(failure: Exception, code: object) -> bool:
    if isinstance(failure, torch.OutOfMemoryError | MemoryError) or code == _OUT_OF_MEMORY:
        return True
    return isinstance(failure, RuntimeError) and _MEMORY_WORDS.search(str(failure)) is not None


def _lost() -> DeviceLostError:
    return DeviceLostError("the device failed, and this process cannot use it any longer")


def _still_runs(call: Callable[[], None]) -> bool:
    """Return whether the GPU, if this process uses one, still executes this call; a lost GPU fails at every call."""
    if not _uses_a_gpu():
        return True
    try:
        call()
    except Exception as failure:  # PyTorch raises nearly every kind
        return getattr(failure, "error_code", None) == _OUT_OF_MEMORY
    return True


def _uses_a_gpu() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]  # PyTorch's own
