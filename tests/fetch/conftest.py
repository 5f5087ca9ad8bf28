from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest

from producer.errors import JobFailed
from tests.fetch.servers import Script, ScriptedServer
from worker.concurrency.cancel_scope import CancelScope
from worker.fetch import Fetcher, UrlPolicy

IMAGE = b"\x89PNG and so on"


class Serve(Protocol):
    def __call__(self, script: Script, **options: Any) -> ScriptedServer: ...


class BytesFetcher(Fetcher):
    """A fetcher that returns the bytes of each file, for tests that compare them."""

    def fetch(self, url: str, **options: Any) -> bytes:  # type: ignore[override]  # no test passes it on as a Fetcher
        return super().fetch(url, **options).take()


class MakeFetcher(Protocol):
    def __call__(self, *servers: ScriptedServer, **options: Any) -> BytesFetcher: ...


def within(timeout_s: float) -> CancelScope:
    """Return a scope whose deadline is ``timeout_s`` from now."""
    return CancelScope(time.monotonic() + timeout_s)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start web servers that follow a script."""
    with contextlib.ExitStack() as servers:
        yield lambda script, **options: servers.enter_context(ScriptedServer(script, **options))


@pytest.fixture
def make_fetcher() -> Iterator[MakeFetcher]:
    """Make fetchers that may reach the given servers on loopback but no other address that is not public."""
    with contextlib.ExitStack() as fetchers:

        def make(*servers: ScriptedServer, **options: Any) -> BytesFetcher:
            servers_only = ",".join(f"{server.address}/32:{server.port}" for server in servers)
            settings = (options.pop("ports", "80,443"), options.pop("allow", servers_only), options.pop("hosts", ""))
            # Connections are used again at once, the hardest case for keeping the responses of two jobs apart.
            usual = {"max_bytes": 1_000_000, "timeout_s": 5.0, "connection_quiet_s": 0.0}
            options = {**usual, **options}
            fetcher = BytesFetcher(UrlPolicy.parsed(*settings), **options)
            return fetchers.enter_context(contextlib.closing(fetcher))

        yield make


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The addresses to which the test tried to connect; each attempt fails."""
    attempts: list[Any] = []

    def connect(_sock: socket.socket, address: Any) -> None:
        attempts.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket.socket, "connect", connect)
    return attempts


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The addresses to which the test tried to connect; the attempts go through."""
    attempts: list[Any] = []
    connect = socket.socket.connect

    def note(sock: socket.socket, address: Any) -> None:
        attempts.append(address)
        connect(sock, address)

    monkeypatch.setattr(socket.socket, "connect", note)
    return attempts


def failure_of(work: Callable[[], object]) -> JobFailed:
    """Return the `JobFailed` that a call raises, after checking that it contains nothing of a URL."""
    with pytest.raises(JobFailed) as caught:
        work()
    failure = caught.value
    assert type(failure) is JobFailed
    assert failure.__cause__ is None
    assert failure.__context__ is None
    for secret in ("127.0.0.1", "localhost", "example", "image.png", "http://", "CANARY"):
        assert secret not in str(failure)
    return failure


def code_of(fetcher: Fetcher, url: Any, **options: Any) -> str:
    """Return the code with which a fetch fails."""
    return failure_of(lambda: fetcher.fetch(url, **options)).code
