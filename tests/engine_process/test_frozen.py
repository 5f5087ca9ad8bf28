"""A frozen engine is killed and replaced; a request that has frozen two engines fails."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from producer.errors import JobFailed
from tests.chaos.null_model import NullModel
from tests.engine_process.engines import TIMEOUT_S, Engines
from tests.engine_process.kept_engine import FROZEN_S, KeptEngine, image
from tests.engine_process.null_engine import COMPUTES, FREEZES, HOLDS_THE_LOCK
from tests.eventually import eventually
from worker.engine_process.main import HUNG_FACTOR, HUNG_S, _may_take_s
from worker.runtime.heartbeat import LOADING_S, HeartbeatMonitor

LIMIT_S = 120.0


@pytest.mark.parametrize("engine", [1, 2], indirect=True, ids="{} batches at once".format)
@pytest.mark.parametrize("first", [FREEZES, HOLDS_THE_LOCK], ids=["stopped", "with Python's lock"])
def test_an_image_that_freezes_two_engines_fails_and_its_neighbours_are_answered(
    first: int, engines: Engines, engine: KeptEngine
) -> None:
    fronts = [engines.front(slots=8), engines.front(slots=8)]
    freezing = engines.ask(fronts[0], image(first))
    others = [engines.ask(fronts[number % 2], image(number)) for number in range(13)]
    prompt = fronts[1].embed_prompt("a fox")

    with pytest.raises(JobFailed) as failure:
        freezing.result(TIMEOUT_S)

    assert (failure.value.code, failure.value.retryable) == ("model_error", False)
    vectors = np.stack([ride.result(TIMEOUT_S).output for ride in others])
    assert vectors == pytest.approx(NullModel().embed_images([image(number) for number in range(13)]))
    assert prompt.result(TIMEOUT_S).output == pytest.approx(NullModel().embed_texts(["a fox"])[0])
    eventually(lambda: engine.statuses == [-signal.SIGKILL] * 2)
    assert len(engine.frozen_reasons) == 2
    assert engine.frozen_reasons[0].startswith("has sent no heartbeat for ")


def test_an_engine_that_is_frozen_under_load_is_replaced_and_every_image_is_answered(
    engines: Engines, engine: KeptEngine
) -> None:
    fronts = [engines.front(slots=8), engines.front(slots=8)]
    asked = [engines.ask(fronts[number % 2], image(100 + number)) for number in range(24)]
    engine.process.send_signal(signal.SIGSTOP)
    asked += [engines.ask(fronts[number % 2], image(150 + number)) for number in range(6)]

    for ride in asked:
        assert ride.result(TIMEOUT_S).output.ndim == 1
    assert engine.statuses == [-signal.SIGKILL]


def test_a_long_forward_pass_that_computes_while_it_holds_the_lock_is_not_taken_for_a_freeze(
    engines: Engines, tmp_path: Path
) -> None:
    with closing(KeptEngine(engines.path, tmp_path, NAMESHOT_JOB_TIMEOUT="60")) as engine:
        eventually(engines.listens, lambda: engine.log)
        front = engines.front()
        began_s = time.monotonic()
        assert engines.ask(front, image(COMPUTES)).result(TIMEOUT_S).output.ndim == 1

        assert time.monotonic() - began_s > FROZEN_S
        assert engine.frozen_reasons == []
        assert engine.statuses == []


def test_a_gpu_s_engine_ends_itself_within_a_fraction_of_a_job_s_timeout_if_a_forward_pass_never_ends(
    engines: Engines, tmp_path: Path
) -> None:
    with closing(KeptEngine(engines.path, tmp_path, NAMESHOT_JOB_TIMEOUT="600", NULL_DEVICE="cuda:0")) as engine:
        eventually(engines.listens, lambda: engine.log)
        front = engines.front()
        assert engines.ask(front, image(1)).result(TIMEOUT_S).output.ndim == 1
        engine.hang.touch()
        asked = engines.ask(front, image(2))
        eventually(lambda: engine.statuses, lambda: engine.log)
        engine.hang.unlink()

        assert asked.result(TIMEOUT_S).output.ndim == 1
        assert engine.statuses == [os.EX_SOFTWARE]
        assert engine.frozen_reasons == []


class Ear:
    """A `HeartbeatMonitor` whose clock, and whose process's CPU time, a test sets."""

    def __init__(self) -> None:
        self.now_s = self.cpu_s = 0.0
        self.signs = HeartbeatMonitor(LIMIT_S, clock=lambda: self.now_s, cpu_s=lambda _pid: self.cpu_s)
        with self.signs.monitor_next() as descriptor:
            self.voice = os.dup(descriptor)

    def hears_for(self, seconds: int, uses_cpu: float = 0.0) -> list[str]:
        """Let ``seconds`` pass; return the reasons for which the monitor called the process frozen."""
        frozen_reasons = []
        for _ in range(2 * seconds):
            self.now_s += 0.5
            self.cpu_s += 0.5 * uses_cpu
            if frozen_reason := self.signs.frozen_reason(1):
                frozen_reasons.append(frozen_reason)
        return frozen_reasons


@pytest.fixture
def ear() -> Iterator[Ear]:
    ear = Ear()
    yield ear
    os.close(ear.voice)


def test_an_engine_may_load_its_model_in_silence_for_ten_minutes(ear: Ear) -> None:
    assert ear.hears_for(int(LOADING_S) - 10) == []
    os.write(ear.voice, b"l")
    assert ear.hears_for(int(LOADING_S) - 10) == []
    assert ear.hears_for(20) == ["has sent no heartbeat for 600 s"]


def test_a_loaded_engine_may_be_silent_while_it_computes_but_not_for_ever(ear: Ear) -> None:
    os.write(ear.voice, b"lr")
    assert ear.hears_for(int(LIMIT_S) - 1, uses_cpu=0.2) == []
    assert ear.hears_for(3, uses_cpu=0.2) == ["has sent no heartbeat for 120 s"]


def test_a_loaded_engine_that_is_silent_and_computes_nothing_is_frozen_and_reported_repeatedly(ear: Ear) -> None:
    os.write(ear.voice, b"lr")
    assert ear.hears_for(32, uses_cpu=0.01) == ["has sent no heartbeat for 16 s"] * 2


def test_a_launcher_that_was_frozen_itself_does_not_regard_its_engine_as_frozen(ear: Ear) -> None:
    os.write(ear.voice, b"r")
    assert ear.hears_for(5) == []
    ear.now_s += 3600  # as if a laptop had slept
    assert ear.hears_for(5) == []


def test_the_silence_of_an_engine_does_not_count_for_the_next_one(ear: Ear) -> None:
    os.write(ear.voice, b"r")
    assert ear.hears_for(10) == []
    with ear.signs.monitor_next():
        pass
    assert ear.hears_for(60) == []


@pytest.mark.parametrize(
    ("device", "cost_s", "expected_s"),
    [
        ("cpu", (1.0, 0.1), LIMIT_S),
        ("cuda:0", (0.0, 0.0), LIMIT_S),
        ("cuda:0", (0.01, 0.001), HUNG_S),
        ("cuda:0", (1.0, 0.1), HUNG_FACTOR * 4.2),
        ("cuda:0", (10.0, 1.0), LIMIT_S),
    ],
)
def test_a_batch_may_take_many_times_a_full_one_s_duration_on_a_gpu_and_up_to_the_limit_on_a_cpu(
    device: str, cost_s: tuple[float, float], expected_s: float
) -> None:
    assert _may_take_s(device, cost_s, 32, LIMIT_S) == pytest.approx(expected_s)
