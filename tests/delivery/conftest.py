"""A Valkey, pictures, a client, and supervised null workers."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from producer import Client
from tests.acceptance.conftest import origin
from tests.acceptance.origin import Origin
from tests.cli.command import Home
from tests.delivery.null_workers import SupervisedWorker
from tests.valkey_server import ValkeyServer

__all__ = ["origin"]

Supervise = Callable[..., SupervisedWorker]


@pytest.fixture
def client(valkey: ValkeyServer) -> Iterator[Client]:
    with Client(valkey.broker_url, valkey.result_backend) as client:
        yield client


@pytest.fixture
def supervise(valkey: ValkeyServer, origin: Origin, tmp_path: Path) -> Supervise:
    """Makes a context in which null workers run."""

    def workers(name: str = "workers", *, poison_label: str | None = None) -> SupervisedWorker:
        return SupervisedWorker(tmp_path / name, valkey, fetch_port=origin.port, poison_label=poison_label)

    return workers


@pytest.fixture
def command(valkey: ValkeyServer, tmp_path: Path) -> Home:
    """The command line of somebody who operates the same Redis."""
    (tmp_path / "home").mkdir()
    return Home.make(
        tmp_path / "home", NAMESHOT_BROKER_URL=valkey.broker_url, NAMESHOT_RESULT_BACKEND=valkey.result_backend
    )
