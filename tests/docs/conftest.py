"""Fixtures for the documents' examples: the system that `nameshot up` would start."""

from collections.abc import Iterator, Mapping

import pytest

from producer.demo.gallery import files_by_name
from producer.embedded.pictures import PictureServer
from producer.embedded.worker import WorkerProcess
from tests.valkey_server import ValkeyServer


@pytest.fixture(scope="module")
def pictures(valkey_of_this_run: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a server of the bundled pictures and a worker that may download them; yield the server's address."""
    with PictureServer(files_by_name()) as server:
        worker = WorkerProcess(
            {
                **valkey_of_this_run.settings("worker"),
                "NAMESHOT_MODEL": "bundled",
                "NAMESHOT_FETCH_ALLOW": server.fetch_allow,
                "NAMESHOT_METRICS_PORT": "0",
            },
            tmp_path_factory.mktemp("up"),
        )
        try:
            worker.wait_until_ready()
            yield server.url
        finally:
            worker.stop()


@pytest.fixture
def replaced(pictures: str, valkey_of_this_run: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """Set a client's environment; return the addresses in the documents and those that replace them in this run."""
    for name, value in valkey_of_this_run.settings("producer").items():
        monkeypatch.setenv(name, value)
    return {
        "http://127.0.0.1:8000": pictures,
        "https://example.com/owl.jpg": f"{pictures}/pictures/owl.png",
    }
