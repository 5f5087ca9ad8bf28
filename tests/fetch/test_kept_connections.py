"""Connections are reused for speed, but no data of one job reaches another."""

from __future__ import annotations

import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trustme

from tests.fetch.conftest import IMAGE, MakeFetcher, Serve, code_of, within
from tests.fetch.servers import Exchange
from worker.fetch.pool import QUIET_S


def test_one_connection_serves_many_downloads(serve: Serve, make_fetcher: MakeFetcher) -> None:
    server = serve(lambda exchange: exchange.answer(IMAGE))
    fetcher = make_fetcher(server)
    for number in range(20):
        assert fetcher.fetch(server.url(f"/{number}")) == IMAGE
    assert server.connections == 1


def test_a_chunked_response_keeps_the_connection_usable(serve: Serve, make_fetcher: MakeFetcher) -> None:
    server = serve(
        lambda exchange: exchange.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        )
    )
    fetcher = make_fetcher(server)
    assert [fetcher.fetch(server.url()) for _ in range(3)] == [b"body"] * 3
    assert server.connections == 1


@pytest.mark.parametrize(
    "fields", [["Connection: close"], ["Connection: keep-alive", "Connection: Close"], ["Connection: , x ,CLOSE,"]]
)
def test_a_connection_that_its_server_is_about_to_close_is_not_kept(
    fields: list[str], serve: Serve, make_fetcher: MakeFetcher
) -> None:
    server = serve(lambda exchange: exchange.answer(IMAGE, headers=fields))
    fetcher = make_fetcher(server)
    assert [fetcher.fetch(server.url()) for _ in range(3)] == [IMAGE] * 3
    assert server.connections == 3


def test_an_interim_response_keeps_the_connection_usable(serve: Serve, make_fetcher: MakeFetcher) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 103 Early Hints\r\nConnection: close\r\n\r\n")
        exchange.answer(IMAGE)

    server = serve(script)
    fetcher = make_fetcher(server)
    assert [fetcher.fetch(server.url()) for _ in range(3)] == [IMAGE] * 3
    assert server.connections == 1


def test_a_name_is_looked_up_once_per_connection(serve: Serve, make_fetcher: MakeFetcher) -> None:
    server = serve(lambda exchange: exchange.answer(IMAGE))
    lookups = []

    def resolve(host: str, _port: int) -> list[str]:
        lookups.append(host)
        return ["127.0.0.1"]

    fetcher = make_fetcher(server, resolve=resolve)
    for _ in range(5):
        fetcher.fetch(server.url(host="h.example"))
    assert lookups == ["h.example"]
    # Another name for the same address is another host, whose addresses are checked separately.
    fetcher.fetch(server.url(host="other.example"))
    assert lookups == ["h.example", "other.example"]
    assert server.connections == 2


def test_an_old_connection_is_not_used_again(serve: Serve, make_fetcher: MakeFetcher) -> None:
    server = serve(lambda exchange: exchange.answer(IMAGE))
    fetcher = make_fetcher(server, max_connection_age_s=0)
    for _ in range(3):
        fetcher.fetch(server.url())
    assert server.connections == 3


def test_the_number_of_idle_connections_is_bounded(serve: Serve, make_fetcher: MakeFetcher) -> None:
    together = threading.Barrier(6)

    def script(exchange: Exchange) -> None:
        if exchange.path == "/together":
            together.wait(10)
        exchange.answer(IMAGE)

    server = serve(script)
    fetcher = make_fetcher(server, max_connections=2)
    fetcher.fetch(server.url())
    before = open_descriptors()
    threads = [threading.Thread(target=fetcher.fetch, args=(server.url("/together"),)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # The fetcher keeps one connection more than before: a socket and the watchdog's duplicate. The server, in this
    # process, has up to six ends of connections.
    assert open_descriptors() - before <= 2 + 6
    assert server.connections == 6


@pytest.mark.parametrize("ending", ["hang-up", "unasked bytes"])
def test_a_connection_that_the_server_closed_or_on_which_it_sent_unasked_bytes_is_replaced(
    ending: str, serve: Serve, make_fetcher: MakeFetcher
) -> None:
    fetched, spoilt = threading.Event(), threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.answer(IMAGE)
        if exchange.connection == 1:
            fetched.wait(5)
            if ending == "hang-up":
                exchange.hang_up()
            else:
                exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
            spoilt.set()

    server = serve(script)
    fetcher = make_fetcher(server)
    assert fetcher.fetch(server.url()) == IMAGE
    fetched.set()
    assert spoilt.wait(5)
    assert fetcher.fetch(server.url()) == IMAGE
    assert server.connections == 2


@pytest.mark.parametrize("surplus", [b"poison", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison" * 1_000])
def test_surplus_bytes_after_a_response_never_become_part_of_the_next(
    surplus: bytes, serve: Serve, make_fetcher: MakeFetcher
) -> None:
    """The surplus arrives with the response; what arrives after the next request is sent looks like its response."""

    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(IMAGE) + IMAGE + surplus)

    server = serve(script)
    fetcher = make_fetcher(server)
    assert [fetcher.fetch(server.url()) for _ in range(5)] == [IMAGE] * 5
    assert server.connections == 5  # no connection on which the server sent too much is used again


def test_surplus_bytes_that_arrive_late_never_become_part_of_the_next_response(
    serve: Serve, make_fetcher: MakeFetcher
) -> None:
    """Nagle's algorithm, for example, delays the second of two responses until the next packet."""
    first: list[Exchange] = []

    def script(exchange: Exchange) -> None:
        first.append(exchange)
        if exchange.path == "/next":
            first[0].send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
        exchange.answer(exchange.path.encode())

    server = serve(script)
    fetcher = make_fetcher(server, connection_quiet_s=QUIET_S)
    assert [fetcher.fetch(server.url(path)) for path in ("/first", "/next")] == [b"/first", b"/next"]
    time.sleep(QUIET_S)  # now both connections could be used again, but one has unread bytes
    with ThreadPoolExecutor(2) as pool:
        paths = ["/third", "/fourth"]
        assert list(pool.map(lambda path: fetcher.fetch(server.url(path)), paths)) == [b"/third", b"/fourth"]


def test_a_connection_that_has_been_quiet_is_used_again(serve: Serve, make_fetcher: MakeFetcher) -> None:
    server = serve(lambda exchange: exchange.answer(IMAGE))
    fetcher = make_fetcher(server, connection_quiet_s=QUIET_S)
    for _ in range(3):
        assert fetcher.fetch(server.url()) == IMAGE
        time.sleep(QUIET_S)
    assert server.connections == 1


def test_a_second_response_sent_at_once_over_tls_never_answers_the_next_request(
    serve: Serve, make_fetcher: MakeFetcher, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("h.example").configure_cert(tls)
    resumed: list[bool | None] = []

    def script(exchange: Exchange) -> None:
        assert isinstance(exchange.sock, ssl.SSLSocket)
        resumed.append(exchange.sock.session_reused)
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
        exchange.send(answer % len(IMAGE) + IMAGE + answer % 6 + b"poison")

    server = serve(script, tls=tls)
    fetcher = make_fetcher(server, ca_file=str(tmp_path / "ca.pem"), resolve=lambda *_: ["127.0.0.1"])
    assert [fetcher.fetch(server.url(host="h.example")) for _ in range(4)] == [IMAGE] * 4
    assert server.connections == 4
    assert resumed == [False] * 4  # no new connection resumes the TLS session of another job


def test_a_kept_connection_is_not_used_for_another_scheme(serve: Serve, make_fetcher: MakeFetcher) -> None:
    server = serve(lambda exchange: exchange.answer(IMAGE))
    fetcher = make_fetcher(server)
    assert fetcher.fetch(server.url()) == IMAGE
    code_of(fetcher, server.url().replace("http:", "https:"), scope=within(0.3))
    assert len(server.requests) == 1


def test_no_host_displaces_the_kept_connections_of_others(serve: Serve, make_fetcher: MakeFetcher) -> None:
    greedy_together = threading.Barrier(8)

    def greedy_script(exchange: Exchange) -> None:
        greedy_together.wait(10)
        exchange.answer(IMAGE)

    modest, greedy = serve(lambda exchange: exchange.answer(IMAGE)), serve(greedy_script)
    fetcher = make_fetcher(modest, greedy, max_connections=4)
    fetcher.fetch(modest.url())
    for _ in range(3):
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(fetcher.fetch, [greedy.url()] * 8)) == [IMAGE] * 8
    fetcher.fetch(modest.url())
    assert modest.connections == 1
    assert greedy.connections == 8 + 6 + 6  # after the first round, two of the eight connections are kept


def test_a_kept_connection_that_closes_just_as_it_is_used_does_not_count_as_an_attempt(
    serve: Serve, make_fetcher: MakeFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.fetch.retries.MAX_ATTEMPTS", 1)

    def script(exchange: Exchange) -> None:
        if exchange.connection == 1 and exchange.path == "/second":
            exchange.hang_up()
        else:
            exchange.answer(IMAGE)

    server = serve(script)
    fetcher = make_fetcher(server)
    assert fetcher.fetch(server.url("/first")) == IMAGE
    assert fetcher.fetch(server.url("/second")) == IMAGE
    assert [request.split()[1] for request in server.requests] == ["/first", "/second", "/second"]


@pytest.mark.parametrize(
    "status", ["404 Not Found", "500 Oops", "204 No Content", "206 Partial Content", "101 Switching Protocols"]
)
def test_an_unread_response_never_reaches_the_next_download(
    status: str, serve: Serve, make_fetcher: MakeFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.fetch.retries.MAX_ATTEMPTS", 1)

    def script(exchange: Exchange) -> None:
        if exchange.path == "/bad":
            exchange.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", status)
        else:
            exchange.answer(IMAGE)

    server = serve(script)
    fetcher = make_fetcher(server)
    for _ in range(3):
        assert code_of(fetcher, server.url("/bad")) == "http_status"
        assert fetcher.fetch(server.url("/good")) == IMAGE


def test_cookies_are_never_kept(serve: Serve, make_fetcher: MakeFetcher) -> None:
    server = serve(lambda exchange: exchange.answer(IMAGE, headers=["Set-Cookie: tenant=one; Path=/"]))
    fetcher = make_fetcher(server)
    for _ in range(3):
        fetcher.fetch(server.url())
    assert all("cookie" not in request.lower() for request in server.requests)


def test_proxies_and_credentials_from_the_environment_are_ignored(
    serve: Serve, make_fetcher: MakeFetcher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    proxy = serve(lambda exchange: exchange.answer(b"from the proxy"))
    server = serve(lambda exchange: exchange.answer(IMAGE))
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\ndefault login me password secret\n")
    netrc.chmod(0o600)
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url(""))
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert make_fetcher(server).fetch(server.url()) == IMAGE
    assert proxy.requests == []
    assert "authorization" not in server.requests[0].lower()


def test_fifty_threads_share_a_fetcher_without_mixing_anything_up(serve: Serve, make_fetcher: MakeFetcher) -> None:
    server = serve(lambda exchange: exchange.answer(exchange.path.encode() * 1_000))
    fetcher = make_fetcher(server, timeout_s=30)
    wrong: list[str] = []

    def work(worker: int) -> None:
        for number in range(10):
            path = f"/{worker}-{number}"
            if fetcher.fetch(server.url(path)) != path.encode() * 1_000:
                wrong.append(path)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert server.connections <= 100


def test_a_closed_fetcher_leaves_no_descriptor_and_no_thread(serve: Serve, make_fetcher: MakeFetcher) -> None:
    server = serve(lambda exchange: exchange.answer(IMAGE))
    before = open_descriptors()
    fetcher = make_fetcher(server)
    fetcher.fetch(server.url())
    code_of(fetcher, "http://127.0.0.1/")
    fetcher.close()
    assert open_descriptors() - before <= 1  # the server's end of the connection, in this process
    for thread in threading.enumerate():
        if thread.name == "fetch-deadlines":
            thread.join(5)
            assert not thread.is_alive()


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
