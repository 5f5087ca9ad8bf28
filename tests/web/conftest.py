"""One server for the tests of a run, and a stock Celery worker's hands for the worker's side."""

from collections.abc import Iterator

import pytest

from tests.client.conftest import worker
from tests.valkey_server import ValkeyServer
from tests.web.serving import Server, serving

__all__ = ["worker"]


@pytest.fixture(scope="session")
def server_of_this_run(valkey_of_this_run: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests; use `server`."""
    with serving(valkey_of_this_run, tmp_path_factory.mktemp("serve") / "log") as server:
        yield server


@pytest.fixture
def server(valkey: ValkeyServer, server_of_this_run: Server) -> Server:
    """The shared server, on an empty Valkey. A test that ends a server, or sets something, starts its own."""
    assert valkey
    return server_of_this_run
