"""A dual encoder on its device, which embeds images and texts separately."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from worker.model.families import Family, Network
from worker.model.forward import forward_pass
from worker.model.interface import DeviceLostError, Float32, Logits, ModelError, ModelLoadError, Prepared, Scoring
from worker.model.pixels import PIXELS, Preparation, SplitPreparation
from worker.model.prompts import Prompts, Tokens
from worker.model.traced import INPUT, TracedTower

#: On a CPU, a batch that uses all cores waits in every layer for a core that decodes an image, but one batch per core
#: does not. On two cores the worker then reaches 0.95 of the bare forward pass's rate instead of 0.80. More than 4
#: batches would need too many images in flight.
MAX_PARALLEL_BATCHES: Final = 4


class DualEncoder:
    """Implements `worker.model.Model`.

    Args:
        name: the model's name in results.
        revision: commit of a Hub checkpoint; None if the checkpoint is a folder.
        network: the network in evaluation mode, on its device.
        dtype: dtype of the network's inputs; a few layers of some families stay in float32.
        family: runs the network.
        preparation: prepares images on the host.
        prompts: tokenises prompts on the host.
        logits: computes logits on the host.
    """

    def __init__(
        self,
        *,
        name: str,
        revision: str | None,
        network: Network,
        dtype: torch.dtype,
        family: Family,
        preparation: Preparation,
        prompts: Prompts,
        logits: Logits,
    ) -> None:
        self.name = name
        self.revision = revision
        self.family: str = network.config.model_type
        self.device = str(network.device)
        self.dtype = str(dtype).removeprefix("torch.")
        self.scoring: Scoring = family.scoring
        self.max_tokens = prompts.max_tokens
        self._network = network
        self._dtype = dtype
        self._family = family
        self._preparation = preparation
        self._prompts = prompts
        self._image_tower = TracedTower(network, family)
        self._cores = torch.get_num_threads()
        self.parallel_batches = 1 if self._on_gpu else min(self._cores, MAX_PARALLEL_BATCHES)
        self.geometry = preparation.geometry if isinstance(preparation, SplitPreparation) else None
        self.logits = logits
        if isinstance(preparation, SplitPreparation):
            # The device's part of the preparation, scale and offset, each (3,), for the last axis of the pixels.
            self._affine = tuple(
                torch.from_numpy(values).to(network.device)
                for values in (preparation.affine.scale, preparation.affine.offset)
            )

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Implement `Model.count_tokens`."""
        return self._prompts.count(prompts)

    def prepare(self, image: Image.Image) -> Prepared:
        """Implement `Model.prepare`."""
        return self._preparation.prepare(image)

    def embed_images(self, batch: Sequence[Prepared], parallel: int = 1) -> Float32:
        """Implement `Model.embed_images`."""
        self._share_cores(parallel)
        return forward_pass(lambda: self._unit(self._image_tower(self._images(batch))))

    def embed_texts(self, prompts: Sequence[str], parallel: int = 1) -> Float32:
        """Implement `Model.embed_texts`."""
        self._share_cores(parallel)
        vectors: list[Float32] = []
        rows: list[int] = []
        for passage, tokens in self._prompts.passages(prompts):
            vectors.append(forward_pass(partial(self._text_vectors, tokens)))
            rows.extend(passage)
        return np.concatenate(vectors)[np.argsort(rows)]

    def _text_vectors(self, tokens: Tokens) -> Float32:
        """Run one pass of the text tower and return k unit vectors, (k, d)."""
        uploaded = {name: self._upload(torch.from_numpy(ids)) for name, ids in tokens.items()}
        return self._unit(self._family.text_vectors(self._network, uploaded))

    def warm_up(self) -> None:
        """Implement `Model.warm_up`."""
        image = Image.new("RGB", (640, 480), (127, 127, 127))
        part = "text tower"
        try:
            self.embed_texts(["a photo"])
            part = "image processor (preprocessor_config.json) or the image tower"
            prepared = self.prepare(image)
            self.embed_images([prepared])
        except DeviceLostError:
            raise  # the checkpoint is not at fault
        except Exception as failure:  # Transformers raises nearly every kind
            kind = "" if isinstance(failure, ModelError) else f"{type(failure).__name__}: "
            what, cause = (str(error or "").partition("\n")[0] for error in (failure, failure.__cause__))
            raise ModelLoadError(
                f"model {self.name!r} loads but does not run, because of the {part}: {kind}{what} {cause}".strip()
            ) from failure
        if not self._on_gpu and isinstance(self._preparation, SplitPreparation):
            self._image_tower.trace(self._images([prepared])[INPUT])

    def _share_cores(self, parallel: int) -> None:
        """Limit this batch to its share of the cores; PyTorch's number of threads is set per calling thread."""
        if self.parallel_batches > 1:
            torch.set_num_threads(max(1, self._cores // parallel))

    def _images(self, batch: Sequence[Prepared]) -> Mapping[str, torch.Tensor]:
        """Return the network's inputs for one batch, on the device, in its dtype."""
        stacked = {name: self._upload(self._stack([image.arrays[name] for image in batch])) for name in batch[0].arrays}
        if PIXELS in stacked:
            scale, offset = self._affine
            pixels = torch.addcmul(offset, stacked[PIXELS].to(torch.float32), scale)
            stacked = {INPUT: pixels.permute(0, 3, 1, 2)}
        return {
            name: values.to(self._dtype) if values.is_floating_point() else values for name, values in stacked.items()
        }

    def _stack(self, arrays: Sequence[npt.NDArray[Any]]) -> torch.Tensor:
        """Stack arrays into a tensor on the host, page-locked for a GPU so that the copy to the GPU is asynchronous."""
        kind = torch.from_numpy(np.empty(0, arrays[0].dtype)).dtype
        stacked = torch.empty((len(arrays), *arrays[0].shape), dtype=kind, pin_memory=self._on_gpu)
        np.stack(arrays, out=stacked.numpy())
        return stacked

    def _upload(self, host: torch.Tensor) -> torch.Tensor:
        return host.to(self._network.device, non_blocking=True)

    @property
    def _on_gpu(self) -> bool:
        return self.device.startswith("cuda")

    def _unit(self, vectors: torch.Tensor) -> Float32:
        """Normalise vectors to length 1 along the last axis and copy them to the host."""
        vectors = vectors.float()
        unit: Float32 = (vectors / vectors.norm(dim=-1, keepdim=True)).cpu().numpy()
        if not np.isfinite(unit).all():
            raise ModelError(f"the model computed numbers that are not finite in {self.dtype}")
        return unit
