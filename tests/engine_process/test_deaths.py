"""If an engine dies, the next one answers its requests, except for one that has killed two engines."""

import os
import signal

import numpy as np
import pytest

from producer.errors import JobFailed
from tests.chaos.null_model import NullModel
from tests.engine_process.engines import TIMEOUT_S, Engines, soon
from tests.engine_process.kept_engine import KeptEngine, image
from tests.engine_process.null_engine import BREAKING_PROMPT, BREAKS, POISON
from tests.eventually import eventually


def test_an_image_that_kills_two_engines_fails_and_its_neighbours_are_answered(
    engines: Engines, engine: KeptEngine
) -> None:
    fronts = [engines.front(slots=8), engines.front(slots=8)]
    poisoned = engines.ask(fronts[0], image(POISON))
    others = [engines.ask(fronts[number % 2], image(number)) for number in range(POISON)]
    prompt = fronts[1].embed_prompt("a fox")

    with pytest.raises(JobFailed) as failure:
        poisoned.result(TIMEOUT_S)

    assert failure.value.code == "model_error"
    # A front sees its connection end before the process's status is known.
    eventually(lambda: engine.statuses == [1, 1])
    model = NullModel()
    vectors = np.stack([ride.result(TIMEOUT_S).output for ride in others])
    assert vectors == pytest.approx(model.embed_images([image(number) for number in range(POISON)]))
    assert prompt.result(TIMEOUT_S).output == pytest.approx(model.embed_texts(["a fox"])[0])


def test_an_engine_prints_each_threads_stack_on_sigusr1_and_goes_on(engines: Engines, engine: KeptEngine) -> None:
    front = engines.front()
    engine.process.send_signal(signal.SIGUSR1)
    eventually(lambda: "most recent call first" in engine.log)

    assert front.embed_prompt("a fox").result(TIMEOUT_S).output.ndim == 1
    assert engine.statuses == []


@pytest.mark.parametrize("engine", [1, 2], indirect=True, ids="{} batches at once".format)
def test_an_image_that_breaks_the_device_fails_after_two_engines_and_its_neighbours_are_answered(
    engines: Engines, engine: KeptEngine
) -> None:
    fronts = [engines.front(slots=8), engines.front(slots=8)]
    breaking = engines.ask(fronts[0], image(BREAKS))
    others = [engines.ask(fronts[number % 2], image(number)) for number in range(13)]
    prompt = fronts[1].embed_prompt("a fox")

    with pytest.raises(JobFailed) as failure:
        breaking.result(TIMEOUT_S)

    assert (failure.value.code, failure.value.retryable) == ("model_error", False)
    eventually(lambda: engine.statuses == [os.EX_SOFTWARE, os.EX_SOFTWARE])
    vectors = np.stack([ride.result(TIMEOUT_S).output for ride in others])
    assert vectors == pytest.approx(NullModel().embed_images([image(number) for number in range(13)]))
    assert prompt.result(TIMEOUT_S).output == pytest.approx(NullModel().embed_texts(["a fox"])[0])


@pytest.mark.parametrize("engine", [1, 2], indirect=True, ids="{} batches at once".format)
def test_a_label_that_breaks_the_device_fails_and_its_neighbours_are_answered(
    engines: Engines, engine: KeptEngine
) -> None:
    fronts = [engines.front(slots=8), engines.front(slots=8)]
    breaking = fronts[0].embed_prompt(BREAKING_PROMPT)
    labels = [f"label {number}" for number in range(20)]
    prompts = [fronts[number % 2].embed_prompt(label) for number, label in enumerate(labels)]
    ride = engines.ask(fronts[1], image(1))

    with pytest.raises(JobFailed) as failure:
        breaking.result(TIMEOUT_S)

    assert failure.value.code == "model_error"
    eventually(lambda: engine.statuses == [os.EX_SOFTWARE, os.EX_SOFTWARE])
    vectors = np.stack([prompt.result(TIMEOUT_S).output for prompt in prompts])
    assert vectors == pytest.approx(NullModel().embed_texts(labels))
    assert ride.result(TIMEOUT_S).output.ndim == 1


def test_labels_that_wait_while_images_kill_several_engines_are_answered(engines: Engines, engine: KeptEngine) -> None:
    front = engines.front(slots=8)
    poisons = [engines.ask(front, image(POISON)) for _ in range(3)]
    prompts = [front.embed_prompt(f"label {number}") for number in range(20)]

    for ride in poisons:
        with pytest.raises(JobFailed, match="model_error"):
            ride.result(TIMEOUT_S)

    assert np.stack([prompt.result(TIMEOUT_S).output for prompt in prompts]).ndim == 2
    assert len(engine.statuses) >= 3, "too few engines died to show that the waiting labels are not blamed"


def test_a_batch_whose_device_is_lost_is_not_halved(engines: Engines, engine: KeptEngine) -> None:
    front = engines.front(slots=8)
    engine.hang.touch()
    asked = [engines.ask(front, image(0))]
    eventually(lambda: front.busy_s > 0)
    asked += [engines.ask(front, image(number)) for number in range(1, 5)]
    engine.lost.touch()
    engine.hang.unlink()

    for ride in asked:
        assert ride.result(TIMEOUT_S).output.ndim == 1

    assert engine.batches[1] > 1
    assert engine.statuses == [os.EX_SOFTWARE]
    assert "halving" not in engine.log


@pytest.mark.parametrize("engine", [1, 2], indirect=True, ids="{} batches at once".format)
def test_if_several_images_kill_engines_only_they_fail(engines: Engines, engine: KeptEngine) -> None:
    front = engines.front(slots=24)
    poisons = (0, 5, 9)
    asked = [engines.ask(front, image(POISON if number in poisons else 100 + number)) for number in range(24)]

    for number, ride in enumerate(asked):
        if number in poisons:
            with pytest.raises(JobFailed, match="model_error"):
                ride.result(TIMEOUT_S)
        else:
            expected = NullModel().embed_images([image(100 + number)])[0]
            assert ride.result(TIMEOUT_S).output == pytest.approx(expected)
    assert len(engine.statuses) <= 2 * len(poisons)


def test_the_next_engine_does_the_work_that_a_lost_device_had(engines: Engines, engine: KeptEngine) -> None:
    front = engines.front()
    engine.lost.touch()

    ride = front.embed_image(image(1), "default", soon())

    assert ride.output == pytest.approx(NullModel().embed_images([image(1)])[0])
    assert engine.statuses == [os.EX_SOFTWARE]
    assert "the device stopped answering: this engine ends" in engine.log
    assert "Traceback" not in engine.log


def test_an_engine_whose_device_hangs_ends_itself_and_the_next_one_answers_its_requests(
    engines: Engines, engine: KeptEngine
) -> None:
    front = engines.front()
    engine.hang.touch()
    asked = engines.ask(front, image(1))
    behind = [engines.ask(front, image(number)) for number in range(2, 7)]
    eventually(lambda: front.busy_s > 0 and front.waiting > 0)
    eventually(lambda: engine.statuses)
    engine.hang.unlink()

    assert engine.statuses == [os.EX_SOFTWARE]
    for ride in [asked, *behind]:
        assert ride.result(TIMEOUT_S).output.ndim == 1
    assert "the device has been busy with one batch for" in engine.log


def test_a_front_is_not_ready_while_its_engine_is_frozen(engines: Engines, engine: KeptEngine) -> None:
    engine.watches = False
    front = engines.front()
    engine.process.send_signal(signal.SIGSTOP)
    eventually(lambda: front.unavailable_reason)
    assert front.unavailable_reason == "the engine is silent"
    asked = engines.ask(front, image(1))
    engine.process.send_signal(signal.SIGCONT)

    assert asked.result(TIMEOUT_S).batch_size == 1
    eventually(lambda: front.unavailable_reason is None)


def test_after_sigterm_an_engine_ends_once_its_last_front_has_left(engines: Engines, engine: KeptEngine) -> None:
    front = engines.front()
    engine.process.send_signal(signal.SIGTERM)
    assert front.embed_image(image(1), "default", soon()).batch_size == 1
    assert engine.statuses == []

    front.close()

    eventually(lambda: engine.statuses)
    assert engine.statuses == [0]


def test_after_sigterm_an_engine_does_not_wait_for_ever_for_a_frozen_front(
    engines: Engines, engine: KeptEngine
) -> None:
    engines.front()  # this front neither leaves nor sends anything
    engine.process.send_signal(signal.SIGTERM)

    eventually(lambda: engine.statuses)

    assert engine.statuses == [0]
    assert "ending with 1 fronts still connected" in engine.log
