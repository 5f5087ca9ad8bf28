"""Users of the command: without any system, with a Redis, and with a running `nameshot up`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import Home, Running
from tests.cli.interruptible import children_can_be_interrupted
from tests.valkey_server import ValkeyServer

__all__ = ["children_can_be_interrupted"]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A user who has started nothing."""
    return Home.make(tmp_path)


@pytest.fixture
def with_valkey(home: Home, valkey: ValkeyServer) -> Home:
    """A user whose environment names a Redis without any worker."""
    return home.with_settings(NAMESHOT_BROKER_URL=valkey.broker_url, NAMESHOT_RESULT_BACKEND=valkey.result_backend)


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A running `nameshot up` with the bundled model. A test that ends or disturbs one starts its own."""
    home = Home.make(tmp_path_factory.mktemp("up"))
    with home.start("up", "--port", "0") as running:
        running.wait_for("Data and logs")
        yield running
