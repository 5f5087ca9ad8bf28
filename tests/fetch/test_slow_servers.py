"""A server may be slow: the limits on connecting and on silence grow with a download's timeout.

`little_patience` reduces the limits that hold for short timeouts to 0.1 s. A download with a long timeout must all the
same survive a second of silence.
"""

from __future__ import annotations

import ssl
import threading
from pathlib import Path

import pytest
import trustme

from tests.fetch.conftest import IMAGE, MakeFetcher, Serve
from tests.fetch.servers import Exchange, Script
from worker.fetch.dialer import MAX_DIALS, Dialer
from worker.fetch.resolver import BoundedResolver
from worker.fetch.slots import Slots
from worker.fetch.url_policy import UrlPolicy

SILENCE_S = 1.0


@pytest.fixture
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.fetch.dialer.CONNECT_TIMEOUT_S", 0.1)
    monkeypatch.setattr("worker.fetch.dialer.SILENCE_TIMEOUT_S", 0.1)


def silent_after(*pieces: bytes) -> Script:
    """Return a script that sends the pieces, each after a silence."""

    def script(exchange: Exchange) -> None:
        for piece in pieces:
            exchange.over.wait(SILENCE_S)
            exchange.send(piece)
        exchange.hang_up()

    return script


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
SILENCES: dict[str, Script] = {
    "before its first byte": silent_after(HEAD + b"body"),
    "within the head": silent_after(HEAD[:20], HEAD[20:] + b"body"),
    "after the head": silent_after(HEAD, b"body"),
    "within the body": silent_after(HEAD + b"bo", b"dy"),
    "within a chunk": silent_after(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbo", b"dy\r\n0\r\n\r\n"),
    "before it hangs up": silent_after(b"HTTP/1.1 200 OK\r\n\r\nbo", b"dy"),
}


@pytest.mark.usefixtures("little_patience")
@pytest.mark.parametrize("silence", SILENCES)
def test_a_server_may_be_silent(silence: str, serve: Serve, make_fetcher: MakeFetcher) -> None:
    server = serve(SILENCES[silence])
    assert make_fetcher(server, timeout_s=60).fetch(server.url()) == b"body"
    assert len(server.requests) == 1


@pytest.mark.usefixtures("little_patience")
def test_a_server_may_be_silent_before_tls_begins(serve: Serve, make_fetcher: MakeFetcher, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = serve(
        lambda exchange: exchange.answer(IMAGE), tls=context, on_accept=lambda _sock, over: over.wait(SILENCE_S)
    )
    assert make_fetcher(server, timeout_s=60, ca_file=str(tmp_path / "ca.pem")).fetch(server.url()) == IMAGE
    assert server.connections == 1


@pytest.mark.usefixtures("little_patience")
def test_a_name_server_may_be_slow(serve: Serve, make_fetcher: MakeFetcher) -> None:
    asked = threading.Event()

    def resolve(_host: str, _port: int) -> list[str]:
        asked.wait(SILENCE_S)
        return ["127.0.0.1"]

    server = serve(lambda exchange: exchange.answer(IMAGE))
    fetcher = make_fetcher(server, timeout_s=60, resolve=resolve)
    assert fetcher.fetch(server.url(host="h.example")) == IMAGE


@pytest.mark.parametrize(
    ("timeout_s", "connect_s", "silence_s"), [(1, 3, 8), (10, 3, 8), (60, 18, 48), (3_600, 1_080, 2_880)]
)
def test_the_limits_of_a_download_grow_with_its_timeout(timeout_s: float, connect_s: float, silence_s: float) -> None:
    policy = UrlPolicy(frozenset({80}))
    dialer = Dialer(policy, BoundedResolver(), Slots(1), timeout_s=timeout_s)
    assert (dialer.connect_s, dialer.silence_s) == pytest.approx((connect_s, silence_s))


def test_some_time_is_left_after_all_permitted_dead_addresses_and_after_a_silence() -> None:
    dialer = Dialer(UrlPolicy(frozenset({80})), BoundedResolver(), Slots(1), timeout_s=60)
    assert MAX_DIALS * dialer.connect_s < 60
    assert dialer.silence_s < 60
