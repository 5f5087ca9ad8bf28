"""Suspects in a worker: which stages run alone, when they wait, and what that means for other jobs."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from PIL import Image

from producer.contract.job import Question
from producer.errors import JobFailed
from tests.chaos.null_model import NullModel
from tests.eventually import eventually
from tests.images.files import encoded
from worker.concurrency.budget import Budget
from worker.concurrency.cancel_scope import Cancelled, CancelScope, Suspect
from worker.concurrency.isolation import Isolation
from worker.decoding.preparing import InThreads
from worker.embeddings.image_cache import Embedded, ImageEmbeddings
from worker.embeddings.label_cache import LabelCache
from worker.engine.failures import result_within
from worker.engine.local import LocalEngine
from worker.engine.stages import Stages
from worker.fetch.files import File
from worker.model.interface import DeviceLostError, Float32, Prepared

TIMEOUT_S = 10.0
LONG_S = 600.0


class Model(NullModel):
    """A model that records each stage with the mark of the suspect that runs alone, and that a test can hold.

    Attributes:
        events: the stages that ran, each with its size and the mark at that time.
        running: a semaphore released when a pass on images begins; none ends while ``may_run`` is clear.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mark: str | None = None
        self.events: list[tuple[str, int, str | None]] = []
        self.running = threading.Semaphore(0)
        self.may_run = threading.Event()
        self.may_run.set()
        self.is_lost = False

    @contextmanager
    def marked(self, mark: str) -> Iterator[None]:
        self.mark = mark
        yield
        self.mark = None

    def of(self, kind: str) -> list[tuple[int, str | None]]:
        return [(size, mark) for what, size, mark in self.events if what == kind]

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        self.events.append(("tokens", len(prompts), self.mark))
        return super().count_tokens(prompts)

    def prepare(self, image: Image.Image) -> Prepared:
        self.events.append(("preparation", 1, self.mark))
        return super().prepare(image)

    def embed_images(self, batch: Sequence[Prepared], parallel: int = 1) -> Float32:
        self.events.append(("images", len(batch), self.mark))
        self.running.release()
        assert self.may_run.wait(TIMEOUT_S)
        if self.is_lost:
            raise DeviceLostError
        return super().embed_images(batch, parallel)

    def embed_texts(self, prompts: Sequence[str], parallel: int = 1) -> Float32:
        self.events.append(("prompts", len(prompts), self.mark))
        return super().embed_texts(prompts, parallel)


class Device:
    """The parts of a worker around a model, called in threads."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self.model = Model()
        self.lost_with: list[str | None] = []
        self.isolation = Isolation(self.model.marked)
        stages = Stages(self.isolation)
        self.engine = LocalEngine(
            self.model,
            max_batch=8,
            on_device_lost=lambda: self.lost_with.append(self.model.mark),
            stages=stages,
        )
        preparing = InThreads(self.model, Budget(10**9, ""), geometry=None, max_pixels=10**6, stages=stages)
        self.images = ImageEmbeddings(preparing, self.engine, max_bytes=10**6)
        self.labels = LabelCache(self.engine)
        self._threads = threads

    def embed(self, scope: CancelScope, shade: int = 0) -> Future[Embedded]:
        picture = encoded(Image.new("RGB", (9, 9), (100, 0, shade)), "PNG")
        return self._threads.submit(self.images.embed, File(picture), "default", scope)

    def ask(self, scope: CancelScope, labels: Sequence[str]) -> Future[Float32]:
        def ask() -> Float32:
            with self.labels.request(Question(list(labels)), scope) as matrix:
                return matrix()

        return self._threads.submit(ask)

    def hold(self) -> None:
        """Let no pass on images end from now on."""
        self.model.may_run.clear()

    def hold_the_device(self) -> Future[Embedded]:
        """Embed an ordinary image, and return once it occupies the device."""
        passes = len(self.model.of("images"))
        self.hold()
        held = self.embed(ordinary(), shade=200)
        eventually(lambda: len(self.model.of("images")) > passes)
        return held

    def let_go(self) -> None:
        self.model.may_run.set()


@pytest.fixture
def device() -> Iterator[Device]:
    with ThreadPoolExecutor(64) as threads:
        device = Device(threads)
        yield device
        device.let_go()
        device.images.close()


def ordinary(timeout_s: float = LONG_S) -> CancelScope:
    return CancelScope(time.monotonic() + timeout_s)


def suspect(name: str = "suspect", timeout_s: float = LONG_S) -> CancelScope:
    return ordinary(timeout_s).of(Suspect(name))


def test_each_stage_of_a_suspect_runs_alone_under_its_own_mark(device: Device) -> None:
    device.ask(suspect("one"), ["fox", "bear"]).result(TIMEOUT_S)
    device.embed(suspect("other")).result(TIMEOUT_S)
    device.ask(ordinary(), ["owl"]).result(TIMEOUT_S)
    device.embed(ordinary(), shade=1).result(TIMEOUT_S)

    assert device.model.of("tokens") == [(2, "one"), (1, None)]
    assert {mark for size, mark in device.model.of("prompts")[:-1]} == {"one"}
    assert device.model.of("prompts")[-1] == (1, None)
    assert device.model.of("preparation") == [(1, "other"), (1, None)]
    assert device.model.of("images") == [(1, "other"), (1, None)]


def test_a_suspect_does_not_wait_for_cached_labels_and_pictures(device: Device) -> None:
    device.ask(ordinary(), ["fox"]).result(TIMEOUT_S)
    device.embed(ordinary()).result(TIMEOUT_S)
    ran = list(device.model.events)
    held = device.hold_the_device()  # until it ends no suspect can run

    device.ask(suspect(), ["fox"]).result(TIMEOUT_S)
    assert device.embed(suspect()).result(TIMEOUT_S).batch_size == 0
    device.let_go()
    held.result(TIMEOUT_S)
    assert device.model.events[len(ran) :] == [("preparation", 1, None), ("images", 1, None)]


def test_between_two_suspects_ordinary_work_for_the_device_has_its_turn(device: Device) -> None:
    held = device.hold_the_device()
    others = [device.embed(suspect(f"suspect {number}"), shade=number) for number in range(1, 30)]
    eventually(lambda: device.isolation.has_exclusive_waiters)
    fresh = device.embed(ordinary(), shade=99)
    eventually(lambda: device.engine.waiting == 1)

    device.let_go()
    for each in (held, fresh, *others):
        each.result(TIMEOUT_S)
    marks = [mark for _, _, mark in device.model.events]
    before_the_last_ordinary_one = marks[: len(marks) - marks[::-1].index(None)]
    assert len([mark for mark in before_the_last_ordinary_one if mark]) <= 2


def await_queued(scope: CancelScope) -> None:
    """Return once the suspect's clock has stopped because it waits for its turn."""
    ends_s = scope.deadline_s
    eventually(lambda: scope.deadline_s > ends_s)


def test_suspects_with_fewer_deaths_of_workers_go_first(device: Device) -> None:
    held = device.hold_the_device()
    marks = [f"{deaths} deaths, {number}" for deaths in (5, 2) for number in range(8)]
    asked = []
    for shade, mark in enumerate(marks):
        scope = ordinary().of(Suspect(mark, deaths=int(mark[0])))
        asked.append(device.embed(scope, shade=shade))
        await_queued(scope)

    device.let_go()
    for each in (held, *asked):
        each.result(TIMEOUT_S)
    order = [mark for stage, _, mark in device.model.events if stage == "preparation" and mark]
    # One suspect with more deaths had its turn before the others arrived.
    assert sum(mark[0] == "5" for mark in order[:9]) <= 2


def test_a_suspect_s_timeout_stops_while_it_waits_for_its_turn(device: Device) -> None:
    held = device.hold_the_device()
    scope = suspect(timeout_s=0.3)
    waiting = device.embed(scope, shade=1)
    eventually(lambda: device.isolation.has_exclusive_waiters)
    ends_s = scope.deadline_s
    eventually(lambda: scope.deadline_s > ends_s + 0.5)

    device.let_go()
    held.result(TIMEOUT_S)
    assert waiting.result(TIMEOUT_S).batch_size == 1


def test_a_suspect_s_timeout_counts_while_it_runs(device: Device) -> None:
    device.hold()

    with pytest.raises(JobFailed, match="deadline_exceeded"):
        device.embed(suspect(timeout_s=0.3)).result(TIMEOUT_S)


@pytest.mark.parametrize("what", ["image", "labels"])
def test_a_suspect_that_is_cancelled_before_its_turn_never_runs(what: str, device: Device) -> None:
    held = device.hold_the_device()
    scope = suspect("cancelled")
    waiting = device.embed(scope, shade=1) if what == "image" else device.ask(scope, ["fox"])
    eventually(lambda: device.isolation.has_exclusive_waiters)

    scope.cancel()
    with pytest.raises(Cancelled):
        waiting.result(TIMEOUT_S)
    device.let_go()
    held.result(TIMEOUT_S)
    device.embed(suspect("next"), shade=2).result(TIMEOUT_S)
    assert "cancelled" not in {mark for _, _, mark in device.model.events}


def test_no_job_waits_for_a_suspect_with_the_same_picture(device: Device) -> None:
    device.hold()
    suspects = [device.embed(suspect(f"suspect {number}"), shade=1) for number in range(2)]
    assert device.model.running.acquire(timeout=TIMEOUT_S)
    same = device.embed(ordinary(), shade=1)
    eventually(lambda: device.isolation.waiting == 1)

    device.let_go()
    for each in (same, *suspects):
        each.result(TIMEOUT_S)
    assert (1, None) in device.model.of("preparation")


def test_the_labels_that_suspects_share_are_counted_and_embedded_once(device: Device) -> None:
    held = device.hold_the_device()
    asked = [device.ask(suspect(f"suspect {number}"), ["fox", "bear", "owl"]) for number in range(20)]
    eventually(lambda: device.isolation.has_exclusive_waiters)

    device.let_go()
    held.result(TIMEOUT_S)
    matrices = [each.result(TIMEOUT_S) for each in asked]
    for matrix in matrices:
        np.testing.assert_array_equal(matrix, matrices[0])
    assert len(device.model.of("tokens")) <= 4  # a few jobs may count tokens before the first one's result is cached
    assert sum(size for size, _ in device.model.of("prompts")) <= 12


def test_when_a_suspect_breaks_the_device_its_mark_still_exists(device: Device) -> None:
    device.model.is_lost = True

    with pytest.raises(JobFailed, match="out_of_memory"):
        device.embed(suspect("culprit")).result(TIMEOUT_S)
    assert device.lost_with[0] == "culprit"


def test_the_device_counts_as_busy_while_a_suspect_s_stage_runs_alone(device: Device) -> None:
    assert device.engine.busy_s == 0
    device.hold()
    running = device.embed(suspect())
    assert device.model.running.acquire(timeout=TIMEOUT_S)
    assert device.engine.busy_s > 0

    device.let_go()
    running.result(TIMEOUT_S)
    eventually(lambda: device.engine.busy_s == 0)


class EndsAsTheOutputComes(CancelScope):
    def result_of(self, future: Future[Any]) -> Any:
        future.set_result("an output")
        raise TimeoutError


def test_an_output_that_comes_just_at_the_deadline_is_too_late() -> None:
    with pytest.raises(JobFailed) as caught:
        result_within(Future(), EndsAsTheOutputComes(time.monotonic()))

    assert caught.value.code == "deadline_exceeded"
