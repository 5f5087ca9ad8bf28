"""Through a socket and shared memory, an engine gives the same vectors, batches and failures as in one process."""

import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from producer.errors import JobFailed
from tests.concurrency.watched_scope import WatchedScope
from tests.engine_process.engines import TIMEOUT_S, Engines, GatedModel, image, soon
from tests.eventually import eventually
from tests.model.pictures import scene
from worker.concurrency.cancel_scope import Cancelled
from worker.engine.local import LocalEngine
from worker.engine_process.link import ask_info
from worker.engine_process.remote import RemoteModel
from worker.model import Model, load_preparation
from worker.model.interface import ModelError, ModelOutOfMemoryError, Prepared

PROMPTS = ["This is a photo of a fox.", "This is a photo of two owls in a tree."]


@pytest.mark.parametrize("family", ["clip", "siglip", "siglip2", "blip-2", "align"])
def test_a_front_s_logits_are_those_of_a_worker_without_an_engine_process(
    family: str, loaded: Callable[[str], Model], checkpoint: Callable[[str], Path], engines: Engines
) -> None:
    model = loaded(family)
    local = LocalEngine(model, max_batch=8, on_device_lost=lambda: None)
    engines.serve(model)
    front = engines.front()
    info = ask_info(engines.path)
    face = RemoteModel(info, lambda: load_preparation(str(checkpoint(family)), info.revision, info.family))
    for seed, size in enumerate([(61, 40), (40, 133), (32, 32)]):
        picture = Image.fromarray(scene(*size, seed))
        ride = front.embed_image(face.prepare(picture), "default", soon())
        texts = [front.embed_prompt(text).result(TIMEOUT_S).output for text in PROMPTS]
        ours = face.logits(ride.output, np.stack(texts))
        vector = local.embed_image(model.prepare(picture), "default", soon()).output
        theirs = model.logits(vector, np.stack([local.embed_prompt(text).result(TIMEOUT_S).output for text in PROMPTS]))
        assert ours == pytest.approx(theirs, rel=0, abs=1e-5)
        assert ride.output.shape == vector.shape
    local.close()

    assert front.count_tokens(PROMPTS, soon()) == model.count_tokens(PROMPTS)
    assert (face.scoring, face.name, face.max_tokens) == (model.scoring, model.name, model.max_tokens)


def test_images_of_two_fronts_share_a_batch(model: GatedModel, engines: Engines) -> None:
    engines.serve(model)
    one, other = engines.front(), engines.front()
    model.may_run.clear()
    held = engines.ask(one, image(model, 0))
    assert model.running.acquire(timeout=TIMEOUT_S)
    asked = [engines.ask(front, image(model, red)) for red, front in enumerate([one, other] * 3, 1)]
    eventually(lambda: engines.engine.waiting == 6)
    model.may_run.set()

    assert {ride.result(TIMEOUT_S).batch_size for ride in asked} == {6}
    assert held.result(TIMEOUT_S).batch_size == 1


def test_while_more_images_wait_than_fit_queues_share_batches_by_weight_across_fronts(
    model: GatedModel, engines: Engines
) -> None:
    engines.serve(model, max_batch=5)
    one, other = engines.front(), engines.front()
    model.may_run.clear()
    held = engines.ask(one, image(model, 0))
    assert model.running.acquire(timeout=TIMEOUT_S)
    bulk = [engines.ask(one, image(model, red), "bulk") for red in range(100, 106)]
    eventually(lambda: engines.engine.waiting == len(bulk))
    high = [engines.ask(other, image(model, red), "high") for red in range(200, 206)]
    eventually(lambda: engines.engine.waiting == len(bulk) + len(high))
    model.may_run.set()
    for ride in [held, *bulk, *high]:
        ride.result(TIMEOUT_S)

    first = model.runs[1]
    assert sum(red >= 200 for red in first) >= 4, model.runs


def test_an_image_whose_job_is_cancelled_does_not_run_and_frees_its_slot(model: GatedModel, engines: Engines) -> None:
    engines.serve(model)
    front, other = engines.front(slots=1), engines.front()
    model.may_run.clear()
    held = engines.ask(other, image(model, 0))
    assert model.running.acquire(timeout=TIMEOUT_S)
    scope = WatchedScope()
    asked = engines.ask(front, image(model, 1), scope=scope)
    eventually(lambda: engines.engine.waiting == 1)
    scope.cancel()
    with pytest.raises(Cancelled):
        asked.result(TIMEOUT_S)
    following = engines.ask(front, image(model, 2))
    # Once the second image has the slot, the engine has received the cancellation.
    eventually(lambda: engines.engine.waiting == 2)
    model.may_run.set()

    assert held.result(TIMEOUT_S).batch_size == 1
    assert following.result(TIMEOUT_S).batch_size == 1
    assert model.runs == [[0], [2]]


def test_images_wait_for_a_slot_if_there_are_more_images_than_slots(model: GatedModel, engines: Engines) -> None:
    engines.serve(model)
    front = engines.front(slots=2)

    asked = [engines.ask(front, image(model, red)) for red in range(20)]

    assert all(ride.result(TIMEOUT_S).batch_size <= 2 for ride in asked)
    assert sorted(red for run in model.runs for red in run) == list(range(20))


def test_each_of_many_threads_gets_its_own_image_s_vector(loaded: Callable[[str], Model], engines: Engines) -> None:
    model = loaded("clip")
    engines.serve(model)
    fronts = [engines.front(slots=4), engines.front(slots=4)]
    images = [image(model, red) for red in range(60)]
    expected = np.concatenate([model.embed_images([one]) for one in images])

    asked = [engines.ask(fronts[number % 2], one) for number, one in enumerate(images)]

    assert np.stack([ride.result(TIMEOUT_S).output for ride in asked]) == pytest.approx(expected, abs=1e-5)


def test_a_prompt_that_is_withdrawn_while_it_waits_is_not_embedded(model: GatedModel, engines: Engines) -> None:
    engines.serve(model)
    front = engines.front()
    model.may_run.clear()
    held = engines.ask(front, image(model, 0))
    assert model.running.acquire(timeout=TIMEOUT_S)
    prompt = front.embed_prompt("a fox")

    assert prompt.cancel()
    with pytest.raises(CancelledError):
        prompt.result(0)
    model.may_run.set()
    assert held.result(TIMEOUT_S)
    assert front.embed_prompt("an owl").result(TIMEOUT_S).output.ndim == 1


def test_a_batch_that_does_not_fit_is_halved_and_an_image_that_does_not_fit_alone_fails(
    model: GatedModel, engines: Engines
) -> None:
    def refuse(batch: Sequence[Prepared]) -> None:
        if len(batch) > 2 or any(one.arrays["pixels"][0, 0, 0] == 13 for one in batch):
            raise ModelOutOfMemoryError("full")

    engines.serve(model)
    front = engines.front()
    model.fails = refuse
    model.may_run.clear()
    asked = [engines.ask(front, image(model, 0))]
    assert model.running.acquire(timeout=TIMEOUT_S)
    asked += [engines.ask(front, image(model, red)) for red in (1, 2, 3, 13)]
    eventually(lambda: engines.engine.waiting == 4)
    model.may_run.set()

    with pytest.raises(JobFailed) as failure:
        asked.pop().result(TIMEOUT_S)
    assert failure.value.code == "out_of_memory"
    assert failure.value.retryable
    assert all(ride.result(TIMEOUT_S).batch_size <= 2 for ride in asked)


def test_an_image_or_prompt_that_the_model_cannot_process_fails_alone_as_in_one_process(
    model: GatedModel, engines: Engines
) -> None:
    def refuse(batch: Sequence[Prepared]) -> None:
        if any(one.arrays["pixels"][0, 0, 0] == 13 for one in batch):
            raise ModelError("no")

    engines.serve(model)
    front = engines.front()
    model.fails = refuse
    asked = [engines.ask(front, image(model, red)) for red in (0, 13)]

    assert asked[0].result(TIMEOUT_S).output.ndim == 1
    with pytest.raises(JobFailed) as failure:
        asked[1].result(TIMEOUT_S)
    assert failure.value.args == ("model_error", "the model could not process this image: no.", False)
    with pytest.raises(JobFailed, match="the model could not process a label: a prompt has"):
        front.embed_prompt("far too long " * 300).result(TIMEOUT_S)


def test_an_image_waits_for_the_next_engine_until_its_job_s_deadline(model: GatedModel, engines: Engines) -> None:
    first = engines.serve(model)
    front = engines.front()
    first.close()
    eventually(lambda: front.unavailable_reason)
    with pytest.raises(JobFailed, match="deadline_exceeded"):
        front.embed_image(image(model, 1), "default", WatchedScope(0.0))
    asked = engines.ask(front, image(model, 2))
    engines.serve(model)

    assert asked.result(TIMEOUT_S).batch_size == 1
    assert model.runs == [[2]]


def test_a_front_notices_that_the_next_engine_has_another_model(
    loaded: Callable[[str], Model], engines: Engines
) -> None:
    other = threading.Event()
    first = engines.serve(loaded("clip"))
    front = engines.front(on_other_model=other.set)
    first.close()
    engines.serve(loaded("siglip"))

    assert other.wait(TIMEOUT_S)
    assert front.unavailable_reason


@pytest.mark.parametrize("removed", ["the socket", "its folder"])
def test_an_engine_whose_socket_was_removed_listens_again_and_keeps_its_fronts(
    removed: str, model: GatedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "sockets"
    folder.mkdir()
    with ThreadPoolExecutor(4) as threads:
        engines = Engines(folder, threads)
        server = engines.serve(model)
        front = engines.front()
        if removed == "its folder":
            shutil.rmtree(folder)
            for _ in range(2):
                server.keep_listening()
            folder.mkdir()
        else:
            engines.path.unlink()
        for _ in range(2):
            server.keep_listening()

        next_front = engines.front()

        for each in (front, next_front):
            assert engines.ask(each, image(model, 1)).result(TIMEOUT_S).batch_size == 1
        assert [record.levelname for record in caplog.records if record.name.endswith("serving")] == (
            ["WARNING"] if removed == "the socket" else ["ERROR", "WARNING"]
        )
        engines.close()
    assert not engines.path.exists()


def test_an_engine_starts_while_its_folder_is_away(model: GatedModel, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        engines = Engines(tmp_path / "sockets", threads)
        server = engines.serve(model)
        assert not engines.listens()

        (tmp_path / "sockets").mkdir()
        server.keep_listening()

        assert engines.listens()
        engines.close()
