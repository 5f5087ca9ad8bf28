"""The memory of a batch that does not fit is freed before its halves run, and later batches may grow again."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any, cast
from weakref import ref

import numpy as np
import pytest
import torch
from PIL import Image
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from producer.errors import JobFailed
from tests.eventually import eventually
from worker.engine.batch_limit import FULL_BATCHES_TO_GROW
from worker.engine.batch_queue import BatchResult
from worker.engine.failures import failure_of
from worker.engine.local import LocalEngine
from worker.model import Model
from worker.model.interface import Float32, Prepared

TIMEOUT_S = 60.0
BATCH = 64


#: A weak reference to a storage; PyTorch has no types for it.
weak_reference: Any = StorageWeakRef


class LivingStorage(TorchDispatchMode):
    """Counts the bytes of all results that are still alive, and raises out of memory above a budget, as a GPU does."""

    def __init__(self, budget_bytes: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # PyTorch has no types for it
        self.budget_bytes = budget_bytes
        self.most_bytes = 0
        self._living: dict[int, tuple[Any, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self._living[storage._cdata] = (weak_reference(storage), storage.nbytes())
        self._living = {key: entry for key, entry in self._living.items() if not entry[0].expired()}
        bytes_now = sum(size for _, size in self._living.values())
        if bytes_now > self.budget_bytes:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB.")
        self.most_bytes = max(self.most_bytes, bytes_now)
        return result


class Bounded:
    """A real model whose forward passes share a limited memory."""

    parallel_batches = 1

    def __init__(self, model: Model, memory: LivingStorage) -> None:
        self._model, self._memory = model, memory

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def embed_images(self, batch: Sequence[Prepared], parallel: int = 1) -> Float32:
        with self._memory:
            return self._model.embed_images(batch, parallel)

    def embed_texts(self, prompts: Sequence[str], parallel: int = 1) -> Float32:
        with self._memory:
            return self._model.embed_texts(prompts, parallel)


@contextmanager
def engine_of(model: Any, max_batch: int = BATCH) -> Iterator[LocalEngine]:
    engine = LocalEngine(cast(Model, model), max_batch=max_batch, max_wait_s=0.2, on_device_lost=lambda: None)
    yield engine
    engine.close()


def pictures(model: Model, count: int) -> list[Prepared]:
    noise = np.random.default_rng(0)
    return [model.prepare(Image.fromarray(noise.integers(0, 256, (32, 32, 3), np.uint8))) for _ in range(count)]


def together(engine: LocalEngine, images: Sequence[Prepared]) -> "list[Future[BatchResult[Float32]]]":
    """Queue all images at once, so that they fill the fewest batches, and wait for them."""
    futures = [engine.queue_image(image, "default") for image in images]
    wait(futures, TIMEOUT_S)
    return futures


def bytes_for(model: Model, images: Sequence[Prepared]) -> int:
    memory = LivingStorage(float("inf"))
    Bounded(model, memory).embed_images(images)
    return memory.most_bytes


@pytest.mark.parametrize("fits", [32, 8, 1])
def test_if_only_a_part_of_a_batch_fits_in_memory_all_its_images_are_still_embedded(
    fits: int, loaded: Callable[[str], Model]
) -> None:
    model = loaded("clip")
    images = pictures(model, BATCH)
    budget_bytes = bytes_for(model, images[:fits])

    with engine_of(Bounded(model, LivingStorage(budget_bytes))) as engine:
        rides = [future.result(0) for future in together(engine, images)]

        assert engine.batch_limit == fits
    assert {ride.batch_size for ride in rides} == {fits}
    vectors = np.stack([ride.output for ride in rides])
    assert vectors == pytest.approx(model.embed_images(images), abs=1e-5)


def test_prompts_that_do_not_fit_together_are_embedded_in_parts(loaded: Callable[[str], Model]) -> None:
    model = loaded("clip")
    prompts = [f"This is a photo of number {number}." for number in range(BATCH)]
    memory = LivingStorage(float("inf"))
    Bounded(model, memory).embed_texts(prompts[:16])

    with engine_of(Bounded(model, LivingStorage(memory.most_bytes))) as engine:
        vectors = [future.result(TIMEOUT_S).output for future in [engine.embed_prompt(prompt) for prompt in prompts]]

    assert np.stack(vectors) == pytest.approx(model.embed_texts(prompts), abs=1e-5)


class Watched:
    """A real model that counts, when a pass begins, the live outputs of the one before; it fails above `fits`."""

    parallel_batches = 1

    def __init__(self, model: Any, fits: int) -> None:
        self._model = model
        self._fits = fits
        self._outputs: list[ref[torch.Tensor]] = []
        #: Of each forward pass: its size, and how many outputs of the previous pass's layers were alive when it began.
        self.passes: list[tuple[int, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def embed_images(self, batch: Sequence[Prepared], parallel: int = 1) -> Float32:
        return self._watch(len(batch), lambda: self._model.embed_images(batch, parallel))

    def embed_texts(self, prompts: Sequence[str], parallel: int = 1) -> Float32:
        return self._watch(len(prompts), lambda: self._model.embed_texts(prompts, parallel))

    def _watch(self, size: int, run: Callable[[], Float32]) -> Float32:
        self.passes.append((size, sum(output() is not None for output in self._outputs)))
        self._outputs.clear()

        def hook(layer: Any, _inputs: Any, output: Any) -> None:
            for tensor in output if isinstance(output, tuple) else [output]:
                if isinstance(tensor, torch.Tensor):
                    self._outputs.append(ref(tensor))
            if type(layer).__name__ == "CLIPEncoderLayer" and size > self._fits:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB.")

        hooks = [layer.register_forward_hook(hook) for layer in self._model._network.modules()]
        try:
            return run()
        finally:
            for handle in hooks:
                handle.remove()


def test_all_tensors_of_a_failed_batch_are_freed_before_its_halves_run(loaded: Callable[[str], Model]) -> None:
    watched = Watched(loaded("clip"), fits=4)
    with engine_of(watched, 16) as engine:
        for future in together(engine, pictures(loaded("clip"), 16)):
            future.result(0)

    assert [size for size, _ in watched.passes] == [16, 8, 4, 4, 4, 4]
    assert [alive for _, alive in watched.passes] == [0] * 6


def test_all_tensors_of_failed_prompts_are_freed_before_their_halves_run(loaded: Callable[[str], Model]) -> None:
    watched = Watched(loaded("clip"), fits=4)
    with engine_of(watched, 16) as engine:
        for future in [engine.embed_prompt(f"number {number}") for number in range(16)]:
            future.result(TIMEOUT_S)

    assert sum(size > 4 for size, _ in watched.passes) > 0, "nothing failed"
    assert {alive for _, alive in watched.passes} == {0}


def test_an_image_that_does_not_fit_alone_fails_and_its_memory_is_freed(loaded: Callable[[str], Model]) -> None:
    watched = Watched(loaded("clip"), fits=0)
    with engine_of(watched, 2) as engine:
        failed = together(engine, pictures(loaded("clip"), 2))
        errors = [failure_of(future.exception(0) or KeyError(), "this image") for future in failed]

        assert [error.code for error in errors] == ["out_of_memory"] * 2
        assert all(isinstance(error, JobFailed) for error in errors)
        assert [output() for output in watched._outputs if output() is not None] == []


def test_batches_grow_again_once_memory_is_free(
    loaded: Callable[[str], Model], caplog: pytest.LogCaptureFixture
) -> None:
    model = loaded("clip")
    images = pictures(model, BATCH)
    memory = LivingStorage(bytes_for(model, images[:8]))
    caplog.set_level("INFO")
    with engine_of(Bounded(model, memory), 16) as engine:
        together(engine, images)
        assert engine.batch_limit == 8

        memory.budget_bytes = float("inf")
        for _ in range(FULL_BATCHES_TO_GROW + 1):
            together(engine, images[:8])

        eventually(lambda: engine.batch_limit == 16)
    assert "images: out of memory at batch 16, at most 8 from now on" in caplog.text
    assert "images: trying batches of 16 again" in caplog.text
