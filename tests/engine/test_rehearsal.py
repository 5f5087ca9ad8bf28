"""Before its first job, a worker with a GPU runs every size of batch, in the thread that will run the jobs."""

import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import pytest

from tests.chaos.null_model import NullModel
from worker.engine.capacity import rehearsed_max_batch
from worker.engine.device import load_engine
from worker.engine.local import PROMPT_BATCH
from worker.model.interface import DeviceLostError, Float32, ModelOutOfMemoryError, Prepared
from worker.settings import WorkerSettings


class Gpu(NullModel):
    """A null model that claims to be on a GPU, and whose forward passes take time only on its own clock."""

    device = "cuda:0"

    def __init__(self, *, fits: int = 4096, is_lost: bool = False, pass_ms: float = 0.0, each_ms: float = 0.0) -> None:
        super().__init__()
        self._pass_ms, self._each_ms = pass_ms, each_ms
        #: The time that its forward passes have taken so far, on its own clock.
        self.busy_s = 0.0
        self._fits, self._is_gone = fits, is_lost
        #: The size and thread of each forward pass.
        self.images: list[tuple[int, str]] = []
        self.prompts: list[tuple[int, str]] = []

    def embed_images(self, batch: Sequence[Prepared], parallel: int = 1) -> Float32:
        self.images.append((len(batch), threading.current_thread().name))
        if self._is_gone:
            raise DeviceLostError("gone")
        if len(batch) > self._fits:
            raise ModelOutOfMemoryError("full")
        self.busy_s += (self._pass_ms + self._each_ms * len(batch)) / 1000
        return super().embed_images(batch, parallel)

    def embed_texts(self, prompts: Sequence[str], parallel: int = 1) -> Float32:
        self.prompts.append((len(prompts), threading.current_thread().name))
        return super().embed_texts(prompts, parallel)


@pytest.fixture
def clocked(monkeypatch: pytest.MonkeyPatch) -> Callable[[Gpu], Gpu]:
    """A function that makes a GPU's clock the one by which batches are measured."""

    def clocked(gpu: Gpu) -> Gpu:
        monkeypatch.setattr("worker.engine.capacity.time", SimpleNamespace(perf_counter=lambda: gpu.busy_s))
        return gpu

    return clocked


def test_every_size_runs_in_the_device_s_own_thread_before_the_first_job(clocked: Callable[[Gpu], Gpu]) -> None:
    gpu = clocked(Gpu(pass_ms=2))
    settings = WorkerSettings.model_validate({"model": "bundled"})

    _, engine = load_engine(settings, load_model=lambda *_, **__: gpu, on_device_lost=lambda: None)
    engine.close()

    assert {size for size, _ in gpu.images} == {1, 2, 4, 8, 16, 32, 64}
    assert {size for size, _ in gpu.prompts} == {1, PROMPT_BATCH}
    assert {name for _, name in gpu.images + gpu.prompts} == {"device-0"}
    assert engine.max_batch == engine.batch_limit == 64


def test_a_gpu_that_larger_batches_do_not_make_faster_gets_a_smaller_maximum(clocked: Callable[[Gpu], Gpu]) -> None:
    assert rehearsed_max_batch(clocked(Gpu(each_ms=1)), None, 1) == 16


@pytest.mark.parametrize(("wanted", "fits", "found"), [(None, 40, 32), (None, 8, 8), (100, 4096, 100), (100, 70, 64)])
def test_the_maximum_is_no_larger_than_a_batch_that_fits(
    wanted: int | None, fits: int, found: int, clocked: Callable[[Gpu], Gpu], caplog: pytest.LogCaptureFixture
) -> None:
    assert rehearsed_max_batch(clocked(Gpu(fits=fits, pass_ms=2)), wanted, 1) == found
    assert ("do not fit into the memory of cuda:0: using at most" in caplog.text) == (
        found not in (64, 100) or fits == 70
    )


def test_if_the_device_is_lost_meanwhile_the_start_fails_and_no_thread_is_left() -> None:
    before = threading.active_count()
    settings = WorkerSettings.model_validate({"model": "bundled"})

    with pytest.raises(DeviceLostError):
        load_engine(settings, load_model=lambda *_, **__: Gpu(is_lost=True), on_device_lost=lambda: None)

    assert threading.active_count() == before
