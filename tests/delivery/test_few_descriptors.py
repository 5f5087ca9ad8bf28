"""A worker whose system permits just the files that it asks for at its start has enough of them for every job."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator

import pytest

from producer import Client
from tests.acceptance.conftest import picture
from tests.delivery.conftest import StartWorker
from worker.runtime.shortages import files_needed

IMAGES = 32
#: More hosts than connections that the worker keeps.
HOSTS = 3 * IMAGES


class KeepAlive(socketserver.StreamRequestHandler):
    """Serves one picture again and again on each connection."""

    body = picture("PNG", (40, 40), "teal")

    def handle(self) -> None:
        while self.rfile.readline():
            while self.rfile.readline().strip():
                pass
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(self.body) + self.body)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = HOSTS


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Of a server that keeps each connection open, at many addresses."""
    with Server(("", 0), KeepAlive) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield [f"127.0.0.{number}:{server.server_address[1]}" for number in range(1, HOSTS + 1)]
        server.shutdown()
        thread.join()


def test_as_many_files_as_a_worker_asks_for_are_enough_for_every_job(
    start_worker: StartWorker, client: Client, hosts: list[str]
) -> None:
    needed = files_needed(IMAGES, idle_downloads=2 * IMAGES)
    start_worker(
        "modest",
        prefix=("prlimit", f"--nofile={needed}:{needed}"),
        NAMESHOT_CONCURRENCY=str(IMAGES),
        NAMESHOT_FETCH_ALLOW="127.0.0.0/24:*",
    )
    urls = [f"http://{host}/{number}.png" for number in range(4) for host in hosts]

    outcomes = list(client.classify_many(urls, ["owl", "car"], images_per_message=1))

    assert [str(outcome.error) for outcome in outcomes if outcome.error] == []
