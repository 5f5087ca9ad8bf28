"""Certificates are checked against the name in the URL, although the worker dials an address."""

from __future__ import annotations

import ssl
import threading
import time
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from producer.errors import SettingsError
from tests.fetch.conftest import IMAGE, MakeFetcher, Serve, code_of, failure_of
from tests.fetch.servers import Exchange
from worker.fetch import Fetcher, UrlPolicy

pytestmark = pytest.mark.usefixtures("one_attempt")


@pytest.fixture
def one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.fetch.retries.MAX_ATTEMPTS", 1)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusting(authority: trustme.CA, tmp_path: Path) -> dict[str, object]:
    """Return options of a fetcher that trusts our authority and resolves every name to 127.0.0.1."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return {"ca_file": str(tmp_path / "ca.pem"), "resolve": lambda *_: ["127.0.0.1"]}


def context_for(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def answer(exchange: Exchange) -> None:
    exchange.answer(IMAGE)


def test_a_certificate_for_the_name_is_accepted_and_the_name_is_sent(
    serve: Serve, make_fetcher: MakeFetcher, authority: trustme.CA, trusting: dict[str, object]
) -> None:
    context = context_for(authority.issue_cert("h.example"))
    names: list[str | None] = []
    context.sni_callback = lambda _sock, name, _context: names.append(name)
    server = serve(answer, tls=context)
    fetcher = make_fetcher(server, **trusting)
    for _ in range(2):
        assert fetcher.fetch(server.url(host="h.example")) == IMAGE
    assert names == ["h.example"]
    assert f"Host: h.example:{server.port}\r\n" in server.requests[0]
    assert server.connections == 1


def test_a_certificate_for_an_address_is_accepted_at_that_address(
    serve: Serve, make_fetcher: MakeFetcher, authority: trustme.CA, trusting: dict[str, object]
) -> None:
    server = serve(answer, tls=context_for(authority.issue_cert("127.0.0.1")))
    assert make_fetcher(server, **trusting).fetch(server.url()) == IMAGE


@pytest.mark.parametrize("trouble", ["wrong name", "address instead of the name", "expired", "not yet", "stranger"])
def test_any_other_certificate_is_refused(
    trouble: str, serve: Serve, make_fetcher: MakeFetcher, authority: trustme.CA, trusting: dict[str, object]
) -> None:
    now, day = datetime.now(UTC), timedelta(days=1)
    certificate = {
        "wrong name": lambda: authority.issue_cert("other.example"),
        "address instead of the name": lambda: authority.issue_cert("127.0.0.1"),
        "expired": lambda: authority.issue_cert("h.example", not_before=now - 2 * day, not_after=now - day),
        "not yet": lambda: authority.issue_cert("h.example", not_before=now + day, not_after=now + 2 * day),
        "stranger": lambda: trustme.CA().issue_cert("h.example"),
    }[trouble]()
    server = serve(answer, tls=context_for(certificate))
    failure = failure_of(lambda: make_fetcher(server, **trusting).fetch(server.url(host="h.example")))
    assert (failure.code, failure.retryable) == ("tls_failed", False)
    assert server.requests == []


def test_a_private_authority_is_not_trusted_by_default(
    serve: Serve, make_fetcher: MakeFetcher, authority: trustme.CA
) -> None:
    server = serve(answer, tls=context_for(authority.issue_cert("h.example")))
    fetcher = make_fetcher(server, resolve=lambda *_: ["127.0.0.1"])
    assert code_of(fetcher, server.url(host="h.example")) == "tls_failed"


def test_a_server_without_tls_fails_as_tls(
    serve: Serve, make_fetcher: MakeFetcher, trusting: dict[str, object]
) -> None:
    def speak_first(sock: object, _over: threading.Event) -> None:
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")  # type: ignore[attr-defined]

    server = serve(answer, on_accept=speak_first)
    assert code_of(make_fetcher(server, **trusting), f"https://h.example:{server.port}/") == "tls_failed"


def test_old_tls_is_refused(
    serve: Serve, make_fetcher: MakeFetcher, authority: trustme.CA, trusting: dict[str, object]
) -> None:
    context = context_for(authority.issue_cert("h.example"))
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    server = serve(answer, tls=context)
    assert code_of(make_fetcher(server, **trusting), server.url(host="h.example")) == "tls_failed"


def test_a_handshake_that_stalls_ends_at_the_deadline(
    serve: Serve, make_fetcher: MakeFetcher, trusting: dict[str, object]
) -> None:
    server = serve(answer, on_accept=lambda _sock, over: over.wait())
    started_s = time.monotonic()
    url = f"https://h.example:{server.port}/"
    assert code_of(make_fetcher(server, timeout_s=0.4, **trusting), url) == "fetch_timeout"
    assert 0.39 < time.monotonic() - started_s < 2


@pytest.mark.parametrize("delay", ["header", "body", "kept connection"])
def test_the_deadline_also_ends_a_slow_drip_over_tls(
    delay: str, serve: Serve, make_fetcher: MakeFetcher, authority: trustme.CA, trusting: dict[str, object]
) -> None:
    def script(exchange: Exchange) -> None:
        if delay == "kept connection" and exchange.path == "/first":
            exchange.answer(IMAGE)
            return
        exchange.send(b"HTTP/1.1 200 OK\r\nX: " + (b"\r\n\r\n" if delay == "body" else b""))
        exchange.drip(b"x", 0.05)

    server = serve(script, tls=context_for(authority.issue_cert("h.example")))
    fetcher = make_fetcher(server, timeout_s=0.4, **trusting)
    if delay == "kept connection":
        fetcher.fetch(server.url("/first", "h.example"))
    started_s = time.monotonic()
    assert code_of(fetcher, server.url(host="h.example")) == "fetch_timeout"
    assert 0.39 < time.monotonic() - started_s < 2


def test_a_server_that_hangs_up_in_the_handshake_is_a_retryable_failure(
    serve: Serve, make_fetcher: MakeFetcher, trusting: dict[str, object]
) -> None:
    def hang_up(sock: object, _over: threading.Event) -> None:
        sock.close()  # type: ignore[attr-defined]

    server = serve(answer, on_accept=hang_up)
    failure = failure_of(lambda: make_fetcher(server, **trusting).fetch(f"https://h.example:{server.port}/"))
    assert (failure.code, failure.retryable) == ("connect_failed", True)


def test_a_redirect_from_https_to_http_is_refused_and_the_other_way_is_followed(
    serve: Serve, make_fetcher: MakeFetcher, authority: trustme.CA, trusting: dict[str, object]
) -> None:
    def script(exchange: Exchange) -> None:
        if exchange.path == "/up":
            exchange.redirect(secure.url("/image", "h.example"))
        elif exchange.path == "/down":
            exchange.redirect(plain.url("/image", "h.example"))
        else:
            exchange.answer(IMAGE)

    plain = serve(script)
    secure = serve(script, tls=context_for(authority.issue_cert("h.example")))
    fetcher = make_fetcher(plain, secure, **trusting)
    assert fetcher.fetch(plain.url("/up", "h.example")) == IMAGE
    assert code_of(fetcher, secure.url("/down", "h.example")) == "host_not_allowed"
    assert [request.split()[1] for request in plain.requests] == ["/up"]


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_an_unusable_authority_file_is_reported_in_one_sentence_at_once(content: str | None, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)

    with pytest.raises(
        SettingsError, match=r"NAMESHOT_FETCH_CA_FILE is .*ca\.pem', but the worker cannot read PEM certificates"
    ):
        Fetcher(UrlPolicy.parsed("443", "", ""), max_bytes=1, timeout_s=1, ca_file=str(file))
