"""Fixtures that read the files of Docker and Compose."""

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture
def root() -> Path:
    """The folder in which users run `docker compose`."""
    return ROOT


@pytest.fixture
def compose(root: Path) -> dict[str, Any]:
    """docker-compose.yml with its anchors resolved but not its variables."""
    loaded: dict[str, Any] = yaml.safe_load((root / "docker-compose.yml").read_text())
    return loaded


@pytest.fixture(params=["worker", "worker-gpu"])
def worker(request: pytest.FixtureRequest, compose: dict[str, Any]) -> dict[str, Any]:
    """Each service that runs a worker."""
    service: dict[str, Any] = compose["services"][request.param]
    return service


@pytest.fixture
def valkey_service(compose: dict[str, Any]) -> dict[str, Any]:
    """The service that holds the queues and the answers."""
    service: dict[str, Any] = compose["services"]["valkey"]
    return service
