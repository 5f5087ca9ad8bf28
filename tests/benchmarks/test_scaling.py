"""The scaling benchmark: its device takes the time it says, its arithmetic is right, and a second of it works."""

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
#: Beside its queue the worker needs none of the machine's time.
QUICK = Device(forward_ms=10, image_ms=10, max_batch=4)


def test_a_devices_rate_is_that_of_full_batches() -> None:
    assert DEVICE.images_per_s == 80  # 8 in 100 ms
    assert Device(0, 0, 8).images_per_s == float("inf")


def test_a_worker_reads_the_device_that_was_written_into_its_environment() -> None:
    assert Device.of(DEVICE.environment()) == DEVICE


def test_the_simulated_device_sleeps_for_a_batch_and_needs_no_cpu() -> None:
    model = NullModel(forward_ms=DEVICE.forward_ms, image_ms=DEVICE.image_ms)
    batch = [Prepared({"pixels": np.zeros((8, 8, 3), dtype=np.uint8)}, key=None)] * DEVICE.max_batch
    model.embed_images(batch)
    started_s, cpu_s = time.perf_counter(), time.thread_time()

    model.embed_images(batch)

    assert time.perf_counter() - started_s >= 0.1
    assert time.thread_time() - cpu_s < 0.05


def test_efficiency_is_the_share_of_so_many_times_one_worker() -> None:
    assert efficiency(40, 4, 10) == 1
    assert efficiency(30, 4, 10) == 0.75


def test_the_brokers_limit_is_where_it_fills_a_core() -> None:
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


def test_costs_are_differences_by_image() -> None:
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


def test_what_idle_workers_cost_is_by_worker_and_second() -> None:
    assert idle(BEFORE, AFTER, workers=5) == {"valkey_cpu_ms_per_worker_s": 5, "commands_per_worker_s": 50}


def test_what_waking_costs_is_by_waiting_worker_and_beside_what_idling_costs() -> None:
    alone = {"images_per_s": 10, "commands": 22, "valkey_cpu_ms": 1.1}
    among_five = {"images_per_s": 10, "commands": 70, "valkey_cpu_ms": 2.3}
    idle_costs = {"commands_per_worker_s": 20, "valkey_cpu_ms_per_worker_s": 1}

    # 20 commands and 1 ms alone, 60 and 1.8 ms among five
    assert waking(alone, among_five, idle_costs, workers=5) == {"commands": 10, "valkey_cpu_ms": 0.2}


def test_a_processes_cpu_time_counts_all_its_threads() -> None:
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
        "brokers": {"bulk": 2, "single": 6},  # bulk by its 12,000 connections, single jobs by their messages
    }


def test_workers_that_wait_need_brokers_too() -> None:
    few_connections = dataclasses.replace(MEASURED, connections=1, idle_ms_per_s=2)

    assert plan(few_connections, gpus=1000, gpu_images_per_s=1).brokers == {"bulk": 4, "single": 4}


def test_a_millions_cost_is_the_gpus_time_and_the_cores() -> None:
    gpu_usd, cores_usd = usd_per_million(MEASURED, gpu_images_per_s=500)

    assert gpu_usd == pytest.approx(0.50 * 2000 / 3600)
    assert cores_usd == pytest.approx(0.04 * 10_500 / 3600)


def test_the_plot_is_well_formed_and_has_a_point_for_each_row() -> None:
    rows = [{"load": load, "workers": n, "efficiency": 1.0} for load in ("single", "bulk") for n in (1, 2, 4)]

    circles = ElementTree.fromstring(svg(rows)).findall("{*}circle")

    assert len(circles) == len(rows) + 2  # and one for each line's name


@pytest.mark.parametrize("images_per_message", [1, 8])
def test_a_second_with_one_worker_measures_no_more_than_its_device_can_do(images_per_message: int) -> None:
    with scene(QUICK, "ready") as here:
        row = here.row(Load("some", images_per_message, QUICK), 1, warm_up_s=0.5, window_s=1)

    # A reading may fall into a batch, of which some answers then count that were computed before.
    assert 0 < row["images_per_s"] < 2 * QUICK.images_per_s
    assert row["worker_cpu_ms"] > 0
    assert row["valkey_cpu_ms"] > 0
    assert row["commands"] > 1
    assert row["connections_per_worker"] > 0


def test_fetched_pictures_are_downloaded_and_answered() -> None:
    with scene(QUICK, "fetched") as here:
        row = here.row(Load("some", 8, QUICK, "fetched"), 1, warm_up_s=0.5, window_s=1)

    assert row["images_per_s"] > 0
