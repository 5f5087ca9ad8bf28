"""Zero-shot image models: the only package of the project that uses PyTorch and Transformers.

Importing this package is cheap and loads neither of them; `load_model` loads both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.model.interface import Model
from worker.model.names import named_folder

if TYPE_CHECKING:
    from worker.model.pixels import Preparation

__all__ = ["Model", "load_model", "load_preparation"]


def load_model(model: str, *, revision: str | None = None, device: str = "auto", dtype: str = "auto") -> Model:
    """Load a checkpoint from the Hugging Face Hub or from a folder.

    Args:
        model: Hub id (``openai/clip-vit-base-patch32``) or the path of a folder.
        revision: branch, tag or commit of a Hub checkpoint.
        device: ``auto`` (the first CUDA device, or the CPU if no GPU is detected), ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: ``float32``, ``float16``, ``bfloat16`` or ``auto`` (float32 on a CPU, float16 on GPUs with tensor cores).

    Raises:
        ModelLoadError: the checkpoint cannot be used here; the message says why and what to do.
        DeviceLostError: the device failed during the load.
    """
    # Each of the two imports below takes seconds, so whatever can be checked before an import is checked before it.
    named_folder(model, revision)
    from worker.model.devices import pick_device

    target = pick_device(device)
    from worker.model.loading import load

    return load(model, revision=revision, target=target, dtype=dtype)


def load_preparation(model: str, revision: str | None, model_type: str) -> Preparation:
    """Load a checkpoint's image preparation that no `Geometry` can describe; this imports Transformers.

    Args:
        model: see `load_model`.
        revision: commit of a Hub checkpoint; None if the checkpoint is a folder.
        model_type: the checkpoint's family.

    Raises:
        ModelLoadError: the checkpoint has no usable image processor.
    """
    from worker.model.loading import load_preparation

    return load_preparation(model, revision, model_type)
