"""A real model that breaks its device for one picture and for one label.

On a GPU it uses an index beyond a tensor's end, which fails an assertion on the device: from then on, every call of the
process fails. A CPU would survive that, so there the model only raises the error. ``python -m
benchmarks.first_gpu.breaking SOCKET`` is an engine process, and ``celery -A benchmarks.first_gpu.breaking worker`` is a
worker.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final, cast

from worker.celery import app
from worker.engine_process.main import main
from worker.model import Model, load_model
from worker.model.interface import DeviceLostError, Float32, Prepared

__all__ = ["app"]

#: The top left pixel of the picture that breaks the device.
PIXEL: Final = (255, 0, 255)
LABEL: Final = "an index beyond the end"


class Breaking:
    """A model that works until its device is broken."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._is_broken = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def embed_images(self, batch: Sequence[Prepared], parallel: int = 1) -> Float32:
        """Embed images as the model does, until a batch contains the picture that breaks the device."""
        self._use_device(any(tuple(image.arrays["pixels"][0, 0]) == PIXEL for image in batch))
        return self._model.embed_images(batch, parallel)

    def embed_texts(self, prompts: Sequence[str], parallel: int = 1) -> Float32:
        """Embed prompts as the model does, until one contains the label that breaks the device."""
        self._use_device(any(LABEL in prompt for prompt in prompts))
        return self._model.embed_texts(prompts, parallel)

    def _use_device(self, breaks: bool) -> None:
        if breaks and self._model.device != "cpu":
            from worker.model.forward import forward_pass

            forward_pass(self._break)
        self._is_broken |= breaks
        if self._is_broken and self._model.device == "cpu":
            raise DeviceLostError("a CPU does not break; this model only acts as if it had")

    def _break(self) -> None:
        import torch

        row = torch.zeros(1, device=self._model.device)
        beyond = torch.full((1,), 1_000_000, device=self._model.device)
        row[beyond].sum().item()


def load(*arguments: Any, **named: Any) -> Model:
    """Load a model as `worker.model.load_model` does, and make it breakable."""
    return cast(Model, Breaking(load_model(*arguments, **named)))


app.load_model = load

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:], load))
