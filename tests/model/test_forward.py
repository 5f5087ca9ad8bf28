"""A failed forward pass raises an exception that says whether a smaller batch may pass."""

from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

from worker.model import Model, load_model
from worker.model.forward import forward_pass
from worker.model.interface import DeviceLostError, ModelError, ModelOutOfMemoryError
from worker.runtime.logs import place_of


def test_after_running_out_of_device_memory_a_smaller_batch_may_pass() -> None:
    with pytest.raises(ModelOutOfMemoryError) as caught:
        forward_pass(lambda: torch.empty(2**58, dtype=torch.uint8))
    assert "allocate" in str(caught.value.__cause__)


def of_the_runtime(code: int, text: str) -> torch.AcceleratorError:
    """Return the exception that PyTorch raises for an error code of the CUDA runtime."""
    error = torch.AcceleratorError(f"CUDA error: {text}\nCUDA kernel errors might be asynchronously reported")
    vars(error)["error_code"] = code  # PyTorch sets it in C++, so it is not in the type stubs
    return error


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB."), ModelOutOfMemoryError),
        (MemoryError(), ModelOutOfMemoryError),
        (of_the_runtime(2, "out of memory"), ModelOutOfMemoryError),
        (torch.AcceleratorError("CUDA error: out of memory"), ModelOutOfMemoryError),
        (RuntimeError("CUDA driver error: out of memory"), ModelOutOfMemoryError),
        (
            RuntimeError('NVML_SUCCESS == r INTERNAL ASSERT FAILED at "/pytorch/c10/cuda/CUDACachingAllocator.cpp"'),
            ModelOutOfMemoryError,
        ),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            ModelOutOfMemoryError,
        ),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
            ModelOutOfMemoryError,
        ),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), ModelOutOfMemoryError),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), ModelOutOfMemoryError),
        (RuntimeError("GET was unable to find an engine to execute this computation"), ModelOutOfMemoryError),
        (of_the_runtime(700, "an illegal memory access was encountered"), DeviceLostError),
        (of_the_runtime(710, "device-side assert triggered"), DeviceLostError),
        (of_the_runtime(214, "uncorrectable ECC error encountered"), DeviceLostError),
        (of_the_runtime(719, "unspecified launch failure"), DeviceLostError),
        (of_the_runtime(999, "unknown error"), DeviceLostError),
        (torch.AcceleratorError("a device of another kind failed"), DeviceLostError),
        (of_the_runtime(9, "invalid configuration argument"), ModelError),
        (of_the_runtime(701, "too many resources requested for launch"), ModelError),
        (of_the_runtime(209, "no kernel image is available for execution on the device"), ModelError),
        (RuntimeError("cuDNN error: CUDNN_STATUS_BAD_PARAM"), ModelError),
        (ValueError("a label that says out of memory"), ModelError),
    ],
    ids=lambda value: f"{value}"[:50] if isinstance(value, Exception) else value.__name__,
)
def test_a_failure_is_classified_by_its_code_or_message_and_not_by_its_class(
    failure: Exception, kind: type[ModelError]
) -> None:
    def fail() -> None:
        raise failure

    with pytest.raises(ModelError) as caught:
        forward_pass(fail)

    assert type(caught.value) is kind
    assert caught.value.__cause__ is failure
    assert place_of(failure).startswith(__file__)


def test_an_unknown_error_means_a_lost_device_only_if_the_device_no_longer_responds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lost(*_: object) -> None:
        raise of_the_runtime(4242, "of a later CUDA")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    with pytest.raises(ModelError, match="the forward pass failed"):
        forward_pass(lost)

    monkeypatch.setattr(torch.cuda, "synchronize", lost)
    with pytest.raises(DeviceLostError):
        forward_pass(lost)


def test_a_device_that_fails_while_its_cache_is_emptied_is_reported_as_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    def lost() -> None:
        raise of_the_runtime(700, "an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lost)
    with pytest.raises(DeviceLostError):
        forward_pass(fail)


def test_a_batch_of_pictures_with_different_keys_is_a_model_error(loaded: Callable[[str], Model]) -> None:
    clip = loaded("clip").prepare(Image.new("RGB", (40, 40)))
    align = loaded("align").prepare(Image.new("RGB", (40, 40)))
    assert clip.key != align.key
    with pytest.raises(ModelError):
        loaded("clip").embed_images([clip, align])


def test_a_model_raises_an_error_instead_of_returning_numbers_that_are_not_finite(
    checkpoint: Callable[[str], Path], tmp_path: Path, device: str
) -> None:
    folder = copytree(checkpoint("clip"), tmp_path / "overflowing")
    weights = load_file(folder / "model.safetensors")
    weights["visual_projection.weight"] = np.full_like(weights["visual_projection.weight"], np.inf)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model = load_model(str(folder), device=device, dtype="float32")
    with pytest.raises(ModelError, match="not finite in float32"):
        model.embed_images([model.prepare(Image.new("RGB", (40, 40)))])
    assert np.isfinite(model.embed_texts(["a fox"])).all()
