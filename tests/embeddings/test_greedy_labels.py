"""A job may have 1,000 labels in 100 templates; others hardly wait for it, and its prompts are dropped when it ends."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from time import monotonic

import pytest
from PIL import Image

from producer.contract.job import Question
from producer.errors import JobFailed
from tests.chaos.null_model import NullModel
from worker.concurrency.cancel_scope import Cancelled, CancelScope
from worker.embeddings.label_cache import LabelCache
from worker.embeddings.reading import MAX_REQUESTED
from worker.engine.local import PROMPT_BATCH, LocalEngine
from worker.model.interface import Float32, Prepared

TIMEOUT_S = 10
MANY = Question([str(number) for number in range(1_000)], [f"{number} {{}}" for number in range(100)])


class Device(NullModel):
    """A device whose batches of prompts wait for `gate`, and which records all batches."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Sequence[str]] = []
        self.entered = threading.Event()
        self.gate = threading.Event()

    def embed_texts(self, prompts: Sequence[str], parallel: int = 1) -> Float32:
        self.batches.append(prompts)
        self.entered.set()
        assert self.gate.wait(TIMEOUT_S)
        return super().embed_texts(prompts, parallel)

    def embed_images(self, batch: Sequence[Prepared], parallel: int = 1) -> Float32:
        self.batches.append(["image"] * len(batch))
        return super().embed_images(batch, parallel)


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def engine(device: Device) -> Iterator[LocalEngine]:
    engine = LocalEngine(device, max_batch=8, on_device_lost=lambda: None)
    yield engine
    device.gate.set()
    engine.close()


def soon() -> CancelScope:
    return CancelScope(monotonic() + TIMEOUT_S)


def in_a_thread(work: Callable[[], object]) -> threading.Thread:
    def quietly() -> None:
        with suppress(Cancelled, JobFailed):
            work()

    thread = threading.Thread(target=quietly)
    thread.start()
    return thread


def greedy(labels: LabelCache, scope: CancelScope) -> None:
    with labels.request(MANY, scope) as matrix:
        matrix(scope)


def test_another_job_s_image_waits_for_at_most_one_batch_of_prompts(engine: LocalEngine, device: Device) -> None:
    labels, scope = LabelCache(engine), soon()
    job = in_a_thread(lambda: greedy(labels, scope))
    assert device.entered.wait(TIMEOUT_S)
    prepared = device.prepare(Image.new("RGB", (8, 8)))
    other = in_a_thread(lambda: engine.embed_image(prepared, "default", soon()))
    while not engine.waiting:
        assert other.is_alive()

    device.gate.set()
    other.join(TIMEOUT_S)
    scope.cancel()
    job.join(TIMEOUT_S)

    assert device.batches[1] == ["image"]


@pytest.mark.parametrize("end", ["cancelled", "over its deadline"])
def test_when_a_job_ends_its_waiting_prompts_do_not_reach_the_device(
    end: str, engine: LocalEngine, device: Device
) -> None:
    labels, scope = LabelCache(engine), soon()
    if end == "over its deadline":
        scope = scope.within(2)  # enough for the device to get its first batch
    job = in_a_thread(lambda: greedy(labels, scope))
    assert device.entered.wait(TIMEOUT_S)

    if end == "cancelled":
        scope.cancel()
    job.join(TIMEOUT_S)
    device.gate.set()
    with labels.request(Question(["owl"]), soon()) as matrix:
        matrix(soon())

    assert len(device.batches[0]) <= PROMPT_BATCH
    assert device.batches[1:] == [["This is a photo of owl."]]


def test_another_job_s_new_labels_do_not_wait_for_all_prompts_of_a_greedy_job(
    engine: LocalEngine, device: Device
) -> None:
    labels, scope = LabelCache(engine), soon()
    job = in_a_thread(lambda: greedy(labels, scope))
    assert device.entered.wait(TIMEOUT_S)

    with labels.request(Question(["owl"]), soon()) as matrix:
        device.gate.set()
        matrix(soon())
    scope.cancel()
    job.join(TIMEOUT_S)

    turn = next(number for number, batch in enumerate(device.batches) if "This is a photo of owl." in batch)
    assert turn <= MAX_REQUESTED / PROMPT_BATCH
