"""What docker-compose.yml ensures for the queue and its workers."""

import re
from typing import Any

import pytest

from worker.settings import WorkerSettings

#: Settings that a container does not need, with the reason.
NOT_PASSED_ON = {
    "NAMESHOT_METRICS_PORT",  # each container has its own ports, and the health check uses the default
    "NAMESHOT_READY_FILE",  # the health check requests the worker's probe instead
}
UNITS_S = {"s": 1, "m": 60}


def seconds(text: str) -> int:
    """Return a duration such as ``130s`` or ``15m`` in seconds."""
    match = re.fullmatch(r"(\d+)([sm])", text)
    assert match, text
    return int(match[1]) * UNITS_S[match[2]]


def test_no_service_is_published_on_the_host(compose: dict[str, Any]) -> None:
    assert all("ports" not in service for service in compose["services"].values())


def test_valkey_is_only_on_an_internal_network(compose: dict[str, Any], valkey_service: dict[str, Any]) -> None:
    assert valkey_service["networks"] == ["queue"]
    assert compose["networks"]["queue"] == {"internal": True}


def test_workers_reach_the_queue_and_the_internet(worker: dict[str, Any], compose: dict[str, Any]) -> None:
    assert worker["networks"] == ["queue", "internet"]
    assert not (compose["networks"]["internet"] or {}).get("internal")


@pytest.mark.parametrize("name", ["valkey", "worker", "worker-gpu"])
def test_no_service_can_write_to_its_image_or_gain_rights(name: str, compose: dict[str, Any]) -> None:
    service = compose["services"][name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "pid", "network_mode", "devices"} & service.keys()


def test_valkey_does_not_run_as_root(valkey_service: dict[str, Any]) -> None:
    assert valkey_service["user"] == "valkey"


def test_a_worker_runs_as_the_user_of_the_image(worker: dict[str, Any]) -> None:
    assert "user" not in worker


@pytest.mark.parametrize(
    ("option", "value"), [("--appendonly", "yes"), ("--maxmemory-policy", "noeviction"), ("--dir", "/data")]
)
def test_valkey_keeps_every_job_in_a_volume_and_evicts_none(
    option: str, value: str, compose: dict[str, Any], valkey_service: dict[str, Any]
) -> None:
    command = valkey_service["command"]

    assert command[command.index(option) + 1] == value
    assert valkey_service["volumes"] == ["queue-data:/data"]
    assert "queue-data" in compose["volumes"]


def test_workers_share_a_volume_for_checkpoints_and_can_write_to_tmp(
    worker: dict[str, Any], compose: dict[str, Any]
) -> None:
    assert worker["volumes"] == ["models:/models"]
    assert "models" in compose["volumes"]
    assert worker["tmpfs"] == ["/tmp"]


def test_services_can_be_scaled(compose: dict[str, Any]) -> None:
    assert all("container_name" not in service for service in compose["services"].values())


def test_a_worker_starts_when_valkey_answers_and_both_come_back_after_a_crash(
    worker: dict[str, Any], valkey_service: dict[str, Any]
) -> None:
    assert worker["depends_on"] == {"valkey": {"condition": "service_healthy"}}
    assert worker["restart"] == valkey_service["restart"] == "unless-stopped"


def test_valkey_is_healthy_when_it_answers_pong(valkey_service: dict[str, Any]) -> None:
    assert valkey_service["healthcheck"]["test"] == ["CMD-SHELL", "valkey-cli ping | grep -q PONG"]


def test_a_worker_has_time_to_finish_its_longest_message_before_it_is_killed(worker: dict[str, Any]) -> None:
    longest_s = 2 * WorkerSettings.model_fields["job_timeout"].default

    assert seconds(worker["stop_grace_period"]) > longest_s
    assert worker["init"] is True


def test_every_setting_of_a_worker_can_be_set_outside_the_container(worker: dict[str, Any]) -> None:
    settings = {f"NAMESHOT_{name.upper()}" for name in WorkerSettings.model_fields}

    passed = {name for name in worker["environment"] if name.startswith("NAMESHOT_")}

    assert passed == settings - NOT_PASSED_ON


def test_a_worker_has_defaults_only_for_the_queue_and_on_a_gpu_for_the_device(
    worker: dict[str, Any],
) -> None:
    given = {name: value for name, value in worker["environment"].items() if value is not None}

    # With this default, the service fails on a machine without a working GPU instead of using the CPU.
    device = {"NAMESHOT_DEVICE": "${NAMESHOT_DEVICE:-cuda}"} if "deploy" in worker else {}
    assert given == {
        **device,
        "NAMESHOT_BROKER_URL": "redis://valkey:6379/0",
        "NAMESHOT_RESULT_BACKEND": "redis://valkey:6379/1",
    }


def test_the_gpu_worker_differs_only_by_its_gpu_and_starts_only_with_its_profile(compose: dict[str, Any]) -> None:
    on_cpu, on_gpu = dict(compose["services"]["worker"]), dict(compose["services"]["worker-gpu"])

    assert on_gpu.pop("profiles") == ["gpu"]
    devices = on_gpu.pop("deploy")["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
    assert on_gpu.pop("environment").keys() == on_cpu.pop("environment").keys()
    assert on_gpu == on_cpu
    assert "profiles" not in on_cpu
