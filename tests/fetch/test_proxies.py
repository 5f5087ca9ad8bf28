"""Downloads through the operator's proxy, to which the worker sends checked addresses and never names."""

from __future__ import annotations

import contextlib
import functools
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from producer.errors import JobFailed, SettingsError
from tests.fetch.conftest import IMAGE, BytesFetcher, MakeFetcher, Serve, code_of, failure_of, within
from tests.fetch.forwarding_proxy import ForwardingProxy
from tests.fetch.servers import Exchange, ScriptedServer
from worker.concurrency.cancel_scope import Cancelled, CancelScope
from worker.fetch import Fetcher
from worker.fetch.proxy import Proxy

pytestmark = pytest.mark.usefixtures("one_attempt")

RESOLVES_TO_LOOPBACK: dict[str, Any] = {"resolve": lambda *_: ["127.0.0.1"]}


def answer(exchange: Exchange) -> None:
    exchange.answer(IMAGE)


@pytest.fixture
def one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.fetch.retries.MAX_ATTEMPTS", 1)


@pytest.fixture
def proxy() -> Iterator[ForwardingProxy]:
    with ForwardingProxy() as running:
        yield running


@pytest.fixture
def through(proxy: ForwardingProxy, make_fetcher: MakeFetcher) -> MakeFetcher:
    """Make fetchers that use the proxy and resolve every name to 127.0.0.1."""

    def make(*servers: ScriptedServer, **options: object) -> BytesFetcher:
        route = Proxy.parsed(proxy.url, str(options.pop("direct", "")), bool(options.pop("tunnels_http", False)))
        return make_fetcher(*servers, **{**RESOLVES_TO_LOOPBACK, "proxy": route, **options})

    return make


@pytest.fixture
def tls_server(serve: Serve, tmp_path: Path) -> ScriptedServer:
    """A server with a certificate for h.example, whose authority is in ca.pem."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("h.example").configure_cert(context)
    return serve(answer, tls=context)


def test_an_http_request_names_the_checked_address_in_absolute_form_and_the_host(
    proxy: ForwardingProxy, through: MakeFetcher, serve: Serve
) -> None:
    server = serve(answer)
    assert through(server).fetch(server.url("/a%3a|b?c", host="h.example")) == IMAGE
    (request,) = proxy.requests
    assert request.startswith(f"GET http://127.0.0.1:{server.port}/a%3a|b?c HTTP/1.1\r\n")
    assert f"\r\nHost: h.example:{server.port}\r\n" in request


def test_https_uses_a_tunnel_to_the_checked_address_and_checks_the_certificate_s_name(
    proxy: ForwardingProxy, through: MakeFetcher, tls_server: ScriptedServer, tmp_path: Path
) -> None:
    fetcher = through(tls_server, ca_file=str(tmp_path / "ca.pem"))
    assert fetcher.fetch(tls_server.url(host="h.example")) == IMAGE
    (request,) = proxy.requests
    assert request.startswith(f"CONNECT 127.0.0.1:{tls_server.port} HTTP/1.1\r\n")
    assert "h.example" not in request
    assert code_of(fetcher, tls_server.url(host="other.example")) == "tls_failed"


def test_http_uses_a_tunnel_if_the_operator_chooses_so(
    proxy: ForwardingProxy, through: MakeFetcher, serve: Serve
) -> None:
    server = serve(answer)
    assert through(server, tunnels_http=True).fetch(server.url(host="h.example")) == IMAGE
    assert proxy.requests[0].startswith("CONNECT ")
    assert server.requests[0].startswith("GET /image.png HTTP/1.1\r\nHost: h.example:")


def test_credentials_are_sent_to_the_proxy_and_not_to_the_server(
    make_fetcher: MakeFetcher, serve: Serve, tls_server: ScriptedServer, tmp_path: Path
) -> None:
    with ForwardingProxy(credentials="us%er:p:ss") as guarded:
        for server in (serve(answer), tls_server):
            url = server.url(host="h.example")
            options = {**RESOLVES_TO_LOOPBACK, "ca_file": str(tmp_path / "ca.pem")}
            known = Proxy.parsed(guarded.url.replace("//", "//us%25er:p%3Ass@"))
            assert make_fetcher(server, proxy=known, **options).fetch(url) == IMAGE
            assert "proxy-authorization" not in server.requests[0].lower()
            unknown = make_fetcher(server, proxy=Proxy.parsed(guarded.url), **options)
            failure = failure_of(functools.partial(unknown.fetch, url))
            assert (failure.code, failure.retryable) == ("connect_failed", False)
            assert "the worker's proxy requires a valid user name and password" in failure.message


def test_addresses_are_checked_before_anything_is_sent_to_the_proxy(
    proxy: ForwardingProxy, through: MakeFetcher
) -> None:
    fetcher = through(resolve=lambda *_: ["10.0.0.1"])
    assert code_of(fetcher, "http://h.example/a.png") == "address_blocked"
    assert code_of(fetcher, "https://169.254.169.254/a.png") == "address_blocked"
    assert proxy.requests == []


def test_the_target_of_a_redirect_is_checked_too(proxy: ForwardingProxy, through: MakeFetcher, serve: Serve) -> None:
    server = serve(lambda exchange: exchange.redirect("http://10.0.0.1/a.png"))
    assert code_of(through(server), server.url(host="h.example")) == "address_blocked"
    assert len(proxy.requests) == 1


def test_addresses_named_direct_are_reached_without_the_proxy(
    proxy: ForwardingProxy, through: MakeFetcher, serve: Serve
) -> None:
    server = serve(answer)
    fetcher = through(server, direct=f"127.0.0.0/8:{server.port}")
    assert fetcher.fetch(server.url(host="h.example")) == IMAGE
    assert proxy.requests == []


def test_the_environment_s_proxy_has_no_effect(
    proxy: ForwardingProxy, make_fetcher: MakeFetcher, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy.url)
    server = serve(answer)
    assert make_fetcher(server, **RESOLVES_TO_LOOPBACK).fetch(server.url(host="h.example")) == IMAGE
    assert proxy.requests == []


def test_a_connection_through_the_proxy_is_reused(proxy: ForwardingProxy, through: MakeFetcher, serve: Serve) -> None:
    server = serve(answer)
    for tunnels_http in (False, True):
        fetcher = through(server, tunnels_http=tunnels_http)
        before = proxy.connections
        for _ in range(3):
            assert fetcher.fetch(server.url(host="h.example")) == IMAGE
        assert proxy.connections == before + 1


def test_an_unreachable_proxy_is_named_as_the_cause_and_does_not_count_against_the_host(
    make_fetcher: MakeFetcher, serve: Serve
) -> None:
    server = serve(answer)
    with ForwardingProxy() as gone:
        pass
    fetcher = make_fetcher(server, proxy=Proxy.parsed(gone.url), **RESOLVES_TO_LOOPBACK)
    for _ in range(12):  # as many failures of a host would open the host's circuit
        failure = failure_of(lambda: fetcher.fetch(server.url(host="h.example")))
        assert (failure.code, failure.retryable) == ("connect_failed", True)
        assert "the worker's proxy cannot be reached" in failure.message


@pytest.mark.parametrize(
    ("status", "retryable"),
    [("403 Forbidden", False), ("405 No", False), ("503 Busy", True), ("429 Busy", True), ("500 Oh", True)],
)
def test_a_tunnel_that_the_proxy_refuses_is_a_failed_connection(
    make_fetcher: MakeFetcher, serve: Serve, tls_server: ScriptedServer, status: str, retryable: bool
) -> None:
    refusing = serve(lambda exchange: exchange.answer(b"<html>", status=status))
    fetcher = make_fetcher(tls_server, proxy=Proxy.parsed(refusing.url("")), **RESOLVES_TO_LOOPBACK)
    failure = failure_of(lambda: fetcher.fetch(tls_server.url(host="h.example")))
    assert (failure.code, failure.retryable) == ("connect_failed", retryable)


@pytest.mark.parametrize("status", ["403 Forbidden", "502 Bad Gateway", "503 Busy", "504 Late", "511 Sign in"])
def test_a_status_that_may_come_from_the_proxy_is_reported_as_such(
    make_fetcher: MakeFetcher, through: MakeFetcher, serve: Serve, status: str
) -> None:
    refusing = serve(lambda exchange: exchange.answer(b"<html>", status=status))
    url = refusing.url(host="h.example")
    for fetcher, who in (
        (make_fetcher(refusing, proxy=Proxy.parsed(refusing.url("")), **RESOLVES_TO_LOOPBACK), True),
        (through(refusing, tunnels_http=True), False),
        (through(refusing, direct="127.0.0.0/8:*"), False),
    ):
        failure = failure_of(functools.partial(fetcher.fetch, url))
        assert failure.code == "http_status"
        assert failure.message.startswith("the server, or the worker's proxy, responded with status ") == who
        assert f"responded with status {status[:3]}, not 200" in failure.message


def test_if_the_proxy_cannot_reach_an_address_the_next_one_is_tried(
    make_fetcher: MakeFetcher, tls_server: ScriptedServer, tmp_path: Path
) -> None:
    with ForwardingProxy(unreachable=("127.0.0.2",)) as proxy:
        fetcher = make_fetcher(
            tls_server,
            allow=f"127.0.0.0/8:{tls_server.port}",
            ca_file=str(tmp_path / "ca.pem"),
            resolve=lambda *_: ["127.0.0.2", "127.0.0.1"],
            proxy=Proxy.parsed(proxy.url),
        )
        assert fetcher.fetch(tls_server.url(host="h.example")) == IMAGE
        assert [request.split()[1].split(":")[0] for request in proxy.requests] == ["127.0.0.2", "127.0.0.1"]


@pytest.mark.parametrize("reply", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 2_000, b"x" * 100_000])
def test_a_proxy_that_does_not_speak_http_cannot_be_used(
    make_fetcher: MakeFetcher, serve: Serve, tls_server: ScriptedServer, reply: bytes
) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(reply)
        exchange.hang_up()

    fetcher = make_fetcher(tls_server, proxy=Proxy.parsed(serve(script).url("")), **RESOLVES_TO_LOOPBACK)
    assert code_of(fetcher, tls_server.url(host="h.example")) == "connect_failed"


def test_a_download_ends_on_time_or_when_cancelled_while_the_proxy_is_silent(
    make_fetcher: MakeFetcher, serve: Serve, tls_server: ScriptedServer
) -> None:
    asked = threading.Event()

    def script(exchange: Exchange) -> None:
        asked.set()
        exchange.stall()

    silent = Proxy.parsed(serve(script).url(""))
    fetcher = make_fetcher(tls_server, proxy=silent, timeout_s=60.0, **RESOLVES_TO_LOOPBACK)
    url = tls_server.url(host="h.example")
    assert code_of(fetcher, url, scope=within(0.2)) == "fetch_timeout"
    asked.clear()
    scope = CancelScope(within(60).deadline_s)

    def cancel() -> None:
        asked.wait(30)
        scope.cancel()

    threading.Thread(target=cancel).start()
    with pytest.raises(Cancelled):
        fetcher.fetch(url, scope=scope)


@pytest.mark.parametrize(
    "url",
    [
        *("proxy:3128", "https://p:1", "socks5://p:1", "http://p", "http://p:0", "http://p:99999", "http://p:1/path"),
        *("http://:1", "http://user:secret@", "http://[::1", "http://p:1?secret", "//p:1"),
    ],
)
def test_a_value_that_is_no_proxy_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(SettingsError, match=r"NAMESHOT_FETCH_PROXY .*write http://HOST:PORT") as refused:
        Proxy.parsed(url)
    assert "secret" not in str(refused.value)


def test_an_exception_that_is_no_address_is_refused_by_the_setting_s_name() -> None:
    with pytest.raises(SettingsError, match="NAMESHOT_FETCH_DIRECT has the entry 'minio'"):
        Proxy.parsed("", "minio")


def test_neither_failures_nor_the_proxy_s_repr_contain_its_password(make_fetcher: MakeFetcher, serve: Serve) -> None:
    server = serve(answer)
    with ForwardingProxy() as gone:
        pass
    proxy = Proxy.parsed(gone.url.replace("//", "//user:hunter2@"))
    fetcher: Fetcher = make_fetcher(server, proxy=proxy, **RESOLVES_TO_LOOPBACK)
    with pytest.raises(JobFailed) as failure, contextlib.closing(fetcher):
        fetcher.fetch(server.url(host="h.example"))
    assert "hunter2" not in f"{failure.value!r} {failure.value.__context__!r} {proxy!r}"
