"""Runs a forward pass and classifies its failure: retry a smaller batch, skip this input, or restart the process.

PyTorch's exception classes do not tell these apart. One class stands for all errors of the CUDA runtime, of which some
break every later call of the process and others break nothing; and out-of-memory errors of the allocator, the runtime,
the driver, NVML, cuBLAS and cuDNN all differ.
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
#: After these codes "any further CUDA work will return the same error", as the CUDA runtime's manual says; or the
#: device is absent (100, 101), not ready (802), unavailable (46) or in an unknown state (999), for example after it
#: has fallen off the bus.
_STICKY: Final = frozenset(
    {46, 100, 101, 201, 214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 802, 999}
)
#: Errors without a code are recognised by their text. A full MIG slice and some containers fail with the NVML
#: assertion; cuBLAS and cuDNN fail if their handles and workspaces find no memory. Since one image has passed at start,
#: such a batch is too large, or another program has taken the memory.
_MEMORY_WORDS: Final = re.compile(
    r"DefaultCPUAllocator"
    r"|out of memory"
    r"|NVML_SUCCESS == r"
    r"|(CUBLAS|CUDNN|CUSOLVER|CUSPARSE)_STATUS_(ALLOC_FAILED|NOT_INITIALIZED)"
    r"|(DEVICE|HOST)_ALLOCATION_FAILED"
    r"|unable to find an engine to execute this computation"
)


def forward_pass(run: Callable[[], T]) -> T:
    """Run without gradients, and translate errors.

    Raises:
        ModelError: or a subclass, as `Model.embed_images`. The layers' outputs are freed by then; a context manager
            could not free them, since it holds the traceback of the error that it handles.
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
    """Translate a failure of PyTorch by its meaning for the next forward pass; if memory ran out, empty the cache."""
    code = getattr(failure, "error_code", None)
    if code in _STICKY:
        return _lost()
    if _means_out_of_memory(failure, code):
        # Cached blocks go back to the driver, for other libraries and programs.
        return (
            ModelOutOfMemoryError("the batch does not fit in the device's memory")
            if _runs(torch.cuda.empty_cache)
            else _lost()
        )
    if isinstance(failure, torch.AcceleratorError) and code is None and not _uses_a_gpu():
        return _lost()  # a device of another kind, whose state cannot be checked
    # cuBLAS and cuDNN report a lost device as an error of their own, and new codes may appear.
    return ModelError("the forward pass failed") if _runs(torch.cuda.synchronize) else _lost()


def _means_out_of_memory(failure: Exception, code: object) -> bool:
    if isinstance(failure, torch.OutOfMemoryError | MemoryError) or code == _OUT_OF_MEMORY:
        return True
    return isinstance(failure, RuntimeError) and _MEMORY_WORDS.search(str(failure)) is not None


def _lost() -> DeviceLostError:
    return DeviceLostError("the device failed, and this process cannot use it any longer")


def _runs(call: Callable[[], None]) -> bool:
    """Whether the GPU, if this process uses one, still executes this call; a lost one raises at every call."""
    if not _uses_a_gpu():
        return True
    try:
        call()
    except Exception as failure:  # PyTorch raises nearly every kind
        return getattr(failure, "error_code", None) == _OUT_OF_MEMORY
    return True


def _uses_a_gpu() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]  # PyTorch's own
