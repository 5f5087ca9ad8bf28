"""docker-compose.yml as the real `docker compose` resolves it, which needs no Docker engine."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Config = Callable[..., dict[str, Any]]


def compose_command() -> list[str] | None:
    """Return `docker compose` or the older `docker-compose`, whichever this machine has; None without either."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and not subprocess.run([*command, "version"], capture_output=True).returncode:
            return command
    return None


@pytest.fixture(scope="module")
def command() -> list[str]:
    """The command of Docker Compose; without it the tests are skipped with a reason."""
    found = compose_command()
    if found is None:
        pytest.skip("neither `docker compose` nor `docker-compose` is installed")
    return found


@pytest.fixture
def config(command: list[str], root: Path, tmp_path: Path) -> Config:
    """Return a function that resolves compose files with only the given variables set, in the shell and in .env."""

    no_settings = tmp_path / ".env"
    no_settings.touch()

    def resolve(*arguments: str, files: tuple[str, ...] = ("docker-compose.yml",), **variables: str) -> dict[str, Any]:
        chosen = [part for file in files for part in ("-f", file)]
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "DOCKER_CONFIG") if name in os.environ}
        outcome = subprocess.run(
            [*command, "--env-file", str(no_settings), *chosen, *arguments, "config"],
            cwd=root,
            env={**kept, **variables},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert outcome.returncode == 0, outcome.stderr
        resolved: dict[str, Any] = yaml.safe_load(outcome.stdout)
        return resolved

    return resolve


def test_compose_starts_valkey_and_a_cpu_worker(config: Config) -> None:
    assert {"valkey", "worker"} <= config()["services"].keys()
    assert "deploy" not in config()["services"]["worker"]


def test_compose_reserves_a_gpu_in_the_gpu_profile(config: Config) -> None:
    service = config("--profile", "gpu")["services"]["worker-gpu"]

    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", 1, ["gpu"])


def test_a_setting_of_the_shell_reaches_the_worker(config: Config) -> None:
    environment = config(NAMESHOT_MODEL="bundled")["services"]["worker"]["environment"]

    assert environment["NAMESHOT_MODEL"] == "bundled"


def test_a_setting_that_is_not_set_is_left_to_the_worker(config: Config) -> None:
    environment = config()["services"]["worker"]["environment"]

    assert environment["NAMESHOT_MODEL"] is None
    assert environment["NAMESHOT_REVISION"] is None


def test_the_choice_of_torch_reaches_the_build(config: Config) -> None:
    build = config(TORCH_INDEX_URL="https://torch.example/cpu")["services"]["worker"]["build"]

    assert build["args"] == {"TORCH_INDEX_URL": "https://torch.example/cpu"}


def test_the_queue_can_be_published_on_loopback_and_nowhere_else(config: Config) -> None:
    files = ("docker-compose.yml", "docker/publish-on-loopback.yml")

    services = config(files=files)["services"]

    (port,) = services["valkey"]["ports"]
    spelled = port if isinstance(port, str) else f"{port['host_ip']}:{port['published']}:{port['target']}"
    assert spelled.removesuffix("/tcp") == "127.0.0.1:6379:6379"
    assert set(services["valkey"]["networks"]) == {"queue", "internet"}
    assert "ports" not in services["worker"]


def test_with_roles_valkey_has_users_and_the_worker_is_one_of_them(config: Config) -> None:
    files = ("docker-compose.yml", "docker/roles.yml")
    urls = {
        f"NAMESHOT_{name}": f"redis://nameshot-worker:pw@valkey:6379/{name}"
        for name in ("BROKER_URL", "RESULT_BACKEND")
    }

    plain, services = config()["services"], config(files=files, **urls)["services"]

    users = ["--aclfile", "/access/users.acl"]
    assert [part for part in services["valkey"]["command"] if part not in users] == [
        part for part in plain["valkey"]["command"] if part not in ("--protected-mode", "no")
    ]
    assert services["valkey"]["command"][-2:] == users
    assert len(services["valkey"]["volumes"]) == 2, "the queue's data has no volume"
    assert urls.items() <= services["worker"]["environment"].items()
    assert services["worker"]["environment"].keys() == plain["worker"]["environment"].keys()
