"""Loading a model leaves no threads of PyTorch behind, which would slow down all later computation."""

import sys
import threading
from typing import Any

import pytest

from tests.processes.programs import numbers_of, run_python
from worker.engine.device import load_engine
from worker.model import Model, load_model
from worker.settings import WorkerSettings

PROGRAM = """
import os, threading
import torch
from tests.eventually import eventually
from worker.engine.device import run_in_short_lived_thread

def helpers():
    return len(os.listdir("/proc/self/task")) - threading.active_count()

def work():
    torch.set_num_threads(4)
    torch.ones(1000, 1000) @ torch.ones(1000, 1000)
    return helpers()

torch.set_num_threads(1)
torch.ones(8, 8) @ torch.ones(8, 8)
before = helpers()
during = run_in_short_lived_thread(work)
eventually(lambda: helpers() <= before)
print([before, during, helpers()], flush=True)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux: it counts the threads in /proc")
def test_pytorch_s_helper_threads_end_with_the_thread_that_started_them() -> None:
    with run_python(PROGRAM) as program:
        before, during, after = numbers_of(program)

    assert during > before
    assert after <= before


def test_a_model_is_loaded_and_warmed_up_in_a_thread_that_has_ended() -> None:
    threads: list[threading.Thread] = []

    def load(*arguments: Any, **named: Any) -> Model:
        threads.append(threading.current_thread())
        model = load_model(*arguments, **named)
        warm_up = model.warm_up

        def warm_up_here(*arguments: Any) -> None:
            threads.append(threading.current_thread())
            warm_up(*arguments)

        model.warm_up = warm_up_here  # type: ignore[method-assign]  # it only records the thread
        return model

    settings = WorkerSettings.model_validate({"model": "bundled", "device": "cpu"})
    _, engine = load_engine(settings, load_model=load, on_device_lost=lambda: None)
    engine.close()

    assert len(threads) == 2
    assert not any(thread.is_alive() for thread in threads)
