"""The scaling benchmark: its simulated device takes the configured time, its arithmetic is right, and it runs."""

import dataclasses
import os
import threading
import time
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks.scaling.__main__ import scene
from benchmarks.scaling.costs import Reading, broker_limit, efficiency, idle, per_image, process_cpu_s, waking
from benchmarks.scaling.device import Device
from benchmarks.scaling.load import Load
from benchmarks.scaling.paper import Measured, plan, usd_per_million
from benchmarks.scaling.plot import svg
from tests.chaos.null_model import NullModel
from worker.model.interface import Prepared

DEVICE = Device(forward_ms=20, image_ms=10, max_batch=8)
#: A device so slow that the worker needs almost no CPU time.
QUICK = Device(forward_ms=10, image_ms=10, max_batch=4)


def test_a_device_s_rate_is_that_of_full_batches() -> None:
    assert DEVICE.images_per_s == 80  # 8 in 100 ms
    assert Device(0, 0, 8).images_per_s == float("inf")


def test_a_device_can_be_passed_to_a_worker_in_its_environment() -> None:
    assert Device.of(DEVICE.environment()) == DEVICE


def test_the_simulated_device_sleeps_for_a_batch_and_needs_no_cpu() -> None:
    model = NullModel(forward_ms=DEVICE.forward_ms, image_ms=DEVICE.image_ms)
    batch = [Prepared({"pixels": np.zeros((8, 8, 3), dtype=np.uint8)}, key=None)] * DEVICE.max_batch
    model.embed_images(batch)
    started_s, cpu_s = time.perf_counter(), time.thread_time()

    model.embed_images(batch)

    assert time.perf_counter() - started_s >= 0.1
    assert time.thread_time() - cpu_s < 0.05


def test_efficiency_is_the_rate_relative_to_that_of_one_worker_times_their_number() -> None:
    assert efficiency(40, 4, 10) == 1
    assert efficiency(30, 4, 10) == 0.75


def test_the_broker_s_limit_is_the_rate_at_which_it_fills_a_core() -> None:
    assert broker_limit(0.25) == 4000


BEFORE = Reading(
    at_s=10,
    images=100,
    workers_cpu_s=1,
    client_cpu_s=2,
    valkey_cpu_s=3,
    valkey_commands_s=1,
    valkey_bytes=5000,
    commands=70,
    connections=9,
)
AFTER = Reading(
    at_s=14,
    images=500,
    workers_cpu_s=3,
    client_cpu_s=3,
    valkey_cpu_s=3.1,
    valkey_commands_s=1.04,
    valkey_bytes=9000,
    commands=1070,
    connections=1,
)


def test_costs_are_differences_of_readings_per_image() -> None:
    assert per_image(BEFORE, AFTER) == {
        "images_per_s": 100,
        "worker_cpu_ms": 5,
        "client_cpu_ms": 2.5,
        "valkey_cpu_ms": 0.25,
        "valkey_commands_ms": 0.1,
        "broker_limit_images_per_s": 4000,
        "busy_cores": 0.78,
        "commands": 2.5,
        "valkey_kb": 0.01,
    }


def test_the_cost_of_idle_workers_is_per_worker_and_second() -> None:
    assert idle(BEFORE, AFTER, workers=5) == {"valkey_cpu_ms_per_worker_s": 5, "commands_per_worker_s": 50}


def test_the_cost_of_waking_is_per_waiting_worker_and_excludes_the_cost_of_idling() -> None:
    alone = {"images_per_s": 10, "commands": 22, "valkey_cpu_ms": 1.1}
    among_five = {"images_per_s": 10, "commands": 70, "valkey_cpu_ms": 2.3}
    idle_costs = {"commands_per_worker_s": 20, "valkey_cpu_ms_per_worker_s": 1}

    # 20 commands and 1 ms alone, 60 and 1.8 ms among five
    assert waking(alone, among_five, idle_costs, workers=5) == {"commands": 10, "valkey_cpu_ms": 0.2}


def test_a_process_s_cpu_time_includes_all_its_threads() -> None:
    def burn() -> None:
        ends_s = time.thread_time() + 0.1
        while time.thread_time() < ends_s:
            pass

    before_s = process_cpu_s(os.getpid())
    threads = [threading.Thread(target=burn) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert process_cpu_s(os.getpid()) - before_s >= 0.18  # whole ticks of 10 ms


MEASURED = Measured(
    worker_cpu_ms=10,
    client_cpu_ms=0.5,
    process_images_per_s=100,
    picture_bytes=100_000,
    broker_limits={"bulk": 20_000, "single": 2_000},
    connections=200,
    idle_ms_per_s=1,
)


def test_a_plan_follows_from_its_formulas() -> None:
    found = plan(MEASURED, gpus=10, gpu_images_per_s=550)

    assert dataclasses.asdict(found) == {
        "gpus": 10,
        "images_per_s": 5500,
        "network_gbit_per_s": 4.4,
        "worker_cores": 55,
        "producer_cores": 2.75,
        "processes": 60,  # six for each GPU
        "brokers": {"bulk": 2, "single": 6},  # connections limit bulk jobs (12,000), messages limit single jobs
    }


def test_workers_that_wait_need_brokers_too() -> None:
    few_connections = dataclasses.replace(MEASURED, connections=1, idle_ms_per_s=2)

    assert plan(few_connections, gpus=1000, gpu_images_per_s=1).brokers == {"bulk": 4, "single": 4}


def test_the_cost_of_a_million_images_includes_gpus_and_cores() -> None:
    gpu_usd, cores_usd = usd_per_million(MEASURED, gpu_images_per_s=500)

    assert gpu_usd == pytest.approx(0.50 * 2000 / 3600)
    assert cores_usd == pytest.approx(0.04 * 10_500 / 3600)


def test_the_plot_is_well_formed_and_has_a_point_for_each_row() -> None:
    rows = [{"load": load, "workers": n, "efficiency": 1.0} for load in ("single", "bulk") for n in (1, 2, 4)]

    circles = ElementTree.fromstring(svg(rows)).findall("{*}circle")

    assert len(circles) == len(rows) + 2  # one more in the legend for each line


@pytest.mark.parametrize("images_per_message", [1, 8])
def test_a_second_of_one_worker_measures_no_more_than_its_device_can_do(images_per_message: int) -> None:
    with scene(QUICK, "ready") as here:
        row = here.row(Load("some", images_per_message, QUICK), 1, warm_up_s=0.5, window_s=1)

    # A reading may fall into a batch, so that some counted answers were computed before it.
    assert 0 < row["images_per_s"] < 2 * QUICK.images_per_s
    assert row["worker_cpu_ms"] > 0
    assert row["valkey_cpu_ms"] > 0
    assert row["commands"] > 1
    assert row["connections_per_worker"] > 0


def test_fetched_pictures_are_downloaded_and_answered() -> None:
    with scene(QUICK, "fetched") as here:
        row = here.row(Load("some", 8, QUICK, "fetched"), 1, warm_up_s=0.5, window_s=1)

    assert row["images_per_s"] > 0
