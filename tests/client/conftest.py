"""Fixtures: clients of the shared Valkey, and a `StockWorker` that takes and answers their messages."""

import socket
from collections.abc import Iterator

import pytest

from producer import Client
from tests.client.stock_worker import StockWorker
from tests.valkey_server import ValkeyServer


@pytest.fixture
def client(valkey: ValkeyServer) -> Iterator[Client]:
    with Client(valkey.broker_url, valkey.result_backend) as client:
        yield client


@pytest.fixture
def worker(valkey: ValkeyServer) -> Iterator[StockWorker]:
    worker = StockWorker(valkey)
    yield worker
    worker.close()


@pytest.fixture
def closed_url() -> Iterator[str]:
    """A Redis URL with a password, at a port on which no process listens or can begin to listen."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"redis://:s3cret@127.0.0.1:{reserved.getsockname()[1]}/0"
