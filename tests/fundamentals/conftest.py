"""Fixtures: a worker with the bundled checkpoint, a server of the bundled pictures, and our client."""

import mimetypes
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from producer import Client
from producer.demo.gallery import files_by_name
from tests.acceptance.conftest import StartWorker, origin, plain, start_worker
from tests.acceptance.origin import Origin
from tests.valkey_server import ValkeyServer

__all__ = ["origin", "plain", "start_worker"]


@pytest.fixture(scope="module", autouse=True)
def worker(start_worker: StartWorker, valkey_of_this_run: ValkeyServer) -> None:
    """One ready worker for all tests of a file, on servers that hold no jobs of other files."""
    with valkey_of_this_run.connect() as connection:
        connection.flushall()
    start_worker("bundled").wait_until_ready()


@pytest.fixture(scope="session")
def pictures(origin: Origin) -> Callable[[str], str]:
    """A function that returns the URL of a bundled picture by its file's name."""
    for name, path in files_by_name().items():
        origin.pages[f"/{name}"] = (mimetypes.guess_type(name)[0] or "image/webp", Path(path).read_bytes())
    return lambda name: origin.url(f"/{name}")


@pytest.fixture
def client(valkey_of_this_run: ValkeyServer) -> Iterator[Client]:
    """Our client, connected to the servers of this run."""
    with Client(valkey_of_this_run.broker_url, valkey_of_this_run.result_backend) as client:
        yield client
