"""A forward pass, and what its failure means for the next one: try less, go on without this input, or give up.

PyTorch tells it by no class. One class stands for all errors of the CUDA runtime, of which some end every later call of
the process and others end nothing; and a lack of memory comes out of the allocator, the runtime, the driver, NVML,
cuBLAS and cuDNN, each time as something else.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, TypeVar

import torch

from worker.model.interface import DeviceLostError, ModelError, ModelOutOfMemoryError
from worker.runtime.tracebacks import release_memory

T = TypeVar("T")

#: cudaErrorMemoryAllocation, and hipErrorOutOfMemory.
_OUT_OF_MEMORY: Final = 2
#: Codes of the CUDA runtime of which its manual says that "any further CUDA work will return the same error"; and those
#: of a device that is not there (100, 101), not ready (802), not to be had (46) or in an unknown state (999), as
#: after it has fallen off the bus.
_STICKY: Final = frozenset(
    {46, 100, 101, 201, 214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 802, 999}
)
#: What has no code says it in words. The NVML assertion is what a full MIG slice and some containers fail with; cuBLAS
#: and cuDNN find no room for their handles and workspaces. Each was met with one image at the start, so that a batch
#: which meets it is too large, or the memory is another program's now.
_MEMORY_WORDS: Final = re.compile(
    r"DefaultCPUAllocator"
    r"|out of memory"
    r"|NVML_SUCCESS == r"
    r"|(CUBLAS|CUDNN|CUSOLVER|CUSPARSE)_STATUS_(ALLOC_FAILED|NOT_INITIALIZED)"
    r"|(DEVICE|HOST)_ALLOCATION_FAILED"
    r"|unable to find an engine to execute this computation"
)


def forward_pass(run: Callable[[], T]) -> T:
    """Run without gradients, and say in the worker's terms what went wrong.

    Raises:
        ModelOutOfMemoryError, DeviceLostError, ModelError: as `Model.embed_images`. The layers' outputs are free then,
            which is why this is no context manager: those hold the traceback of what they handle.
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
    """What a failure of PyTorch means for the next forward pass; after a lack of memory the cache is empty."""
    code = getattr(failure, "error_code", None)
    if code in _STICKY:
        return _lost()
    if _means_out_of_memory(failure, code):
        return ModelOutOfMemoryError("the batch does not fit in the device's memory") if _emptied() else _lost()
    if isinstance(failure, torch.AcceleratorError) and code is None and not _uses_a_gpu():
        return _lost()  # of another kind of device, about which nothing else can be asked
    # cuBLAS and cuDNN report a lost device as an error of their own; and there are codes that no list has yet.
    return ModelError("the forward pass failed") if _answers() else _lost()


def _means_out_of_memory(failure: Exception, code: object) -> bool:
    if isinstance(failure, torch.OutOfMemoryError | MemoryError) or code == _OUT_OF_MEMORY:
        return True
    return isinstance(failure, RuntimeError) and _MEMORY_WORDS.search(str(failure)) is not None


def _lost() -> DeviceLostError:
    return DeviceLostError("the device failed, and this process cannot use it any longer")


def _emptied() -> bool:
    """Give cached blocks back to the driver, which other libraries and programs take theirs from; False: it is lost."""
    return _runs(torch.cuda.empty_cache)


def _answers() -> bool:
    return _runs(torch.cuda.synchronize)


def _runs(call: Callable[[], None]) -> bool:
    """Whether a GPU that this process has in use still does what it is told; one that is lost raises for everything."""
    if not _uses_a_gpu():
        return True
    try:
        call()
    except Exception as failure:  # the device's own, or whatever PyTorch makes of it
        return getattr(failure, "error_code", None) == _OUT_OF_MEMORY
    return True


def _uses_a_gpu() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]  # PyTorch's own
