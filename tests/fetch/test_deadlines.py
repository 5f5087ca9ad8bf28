"""Whatever a server does to delay it, a download ends at its deadline."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

import pytest

from tests.fetch.conftest import IMAGE, MakeFetcher, Serve, code_of, failure_of, within
from tests.fetch.servers import Exchange, Script
from worker.concurrency.cancel_scope import Cancelled, CancelScope
from worker.fetch.deadline import Watchdog

TIME_S = 0.4
#: Slack for a machine that is busy with other tests.
SLACK_S = 1.5

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def sends(first: bytes, then_drips: bytes = b"") -> Script:
    """Return a script that sends something, and then either something else for ever or nothing more."""

    def script(exchange: Exchange) -> None:
        exchange.send(first)
        if then_drips:
            exchange.drip(then_drips, every_s=0.05)
        else:
            exchange.stall()

    return script


DELAYS: dict[str, Script] = {
    "says nothing": sends(b""),
    "drips a header": sends(OK + b"X: ", b"x"),
    "drips headers": sends(OK, b"X: y\r\n"),
    "says 100 Continue for ever": sends(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "drips a body": sends(OK + b"Content-Length: 9999\r\n\r\n", b"x"),
    "drips a body that ends with the connection": sends(OK + b"Connection: close\r\n\r\n", b"x"),
    "drips chunks": sends(CHUNKED, b"1\r\nx\r\n"),
    "drips trailers": sends(CHUNKED + b"1\r\nx\r\n0\r\n", b"X: y\r\n"),
    "stalls within the body": sends(OK + b"Content-Length: 9999\r\n\r\nxxx"),
    "sends all but the last byte": sends(OK + b"Content-Length: 4\r\n\r\nxxx"),
    "sends all but the end of the connection": sends(OK + b"Connection: close\r\n\r\nbody"),
}


def ends_in_time(fetch: Callable[[], object]) -> None:
    started_s = time.monotonic()
    assert failure_of(fetch).code == "fetch_timeout"
    assert TIME_S - 0.01 <= time.monotonic() - started_s < TIME_S + SLACK_S


@pytest.mark.parametrize("delay", DELAYS)
def test_a_download_from_a_server_that_delays_ends_at_the_deadline(
    delay: str, serve: Serve, make_fetcher: MakeFetcher
) -> None:
    server = serve(DELAYS[delay])
    fetcher = make_fetcher(server, timeout_s=TIME_S)
    ends_in_time(lambda: fetcher.fetch(server.url()))


@pytest.mark.parametrize("delay", DELAYS)
def test_the_deadline_also_applies_to_a_kept_connection(delay: str, serve: Serve, make_fetcher: MakeFetcher) -> None:
    def script(exchange: Exchange) -> None:
        if exchange.path == "/first":
            exchange.answer(IMAGE)
        else:
            DELAYS[delay](exchange)

    server = serve(script)
    fetcher = make_fetcher(server, timeout_s=TIME_S)
    assert fetcher.fetch(server.url("/first")) == IMAGE
    ends_in_time(lambda: fetcher.fetch(server.url("/second")))
    assert server.connections == 1


def test_a_download_and_its_redirects_share_one_deadline(serve: Serve, make_fetcher: MakeFetcher) -> None:
    def script(exchange: Exchange) -> None:
        exchange.over.wait(TIME_S * 0.4)
        exchange.redirect(f"/{exchange.path[1:]}x")

    server = serve(script)
    fetcher = make_fetcher(server, timeout_s=TIME_S)
    ends_in_time(lambda: fetcher.fetch(server.url("/")))


def test_a_look_up_that_hangs_ends_at_the_deadline(make_fetcher: MakeFetcher) -> None:
    over = threading.Event()

    def resolve(_host: str, _port: int) -> list[str]:
        over.wait()
        return ["1.1.1.1"]

    fetcher = make_fetcher(timeout_s=TIME_S, resolve=resolve)
    ends_in_time(lambda: fetcher.fetch("http://h.example/"))
    over.set()


def test_a_connection_attempt_without_any_reply_ends_at_the_deadline(make_fetcher: MakeFetcher) -> None:
    # A listener whose queue is full does not answer a SYN.
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
        fetcher = make_fetcher(timeout_s=TIME_S, allow=f"127.0.0.1/32:{port}")
        ends_in_time(lambda: fetcher.fetch(f"http://127.0.0.1:{port}/"))
        for sock in waiting:
            sock.close()


def test_a_job_s_own_timeout_can_only_shorten_the_download_s(serve: Serve, make_fetcher: MakeFetcher) -> None:
    server = serve(lambda exchange: exchange.stall())
    fetcher = make_fetcher(server, timeout_s=TIME_S)
    ends_in_time(lambda: fetcher.fetch(server.url(), scope=within(1_000.0)))
    patient = make_fetcher(server, timeout_s=1_000.0)
    ends_in_time(lambda: patient.fetch(server.url(), scope=within(TIME_S)))


def test_a_deadline_that_has_passed_dials_nothing(serve: Serve, make_fetcher: MakeFetcher) -> None:
    server = serve(lambda exchange: exchange.answer(IMAGE))
    assert code_of(make_fetcher(server), server.url(), scope=CancelScope(time.monotonic() - 1)) == "fetch_timeout"
    assert server.connections == 0


def test_fifty_stalled_downloads_end_together(serve: Serve, make_fetcher: MakeFetcher) -> None:
    server = serve(lambda exchange: exchange.drip(b"HTTP/1.1 100 Continue\r\n\r\n", 0.1))
    fetcher = make_fetcher(server, timeout_s=TIME_S)
    before = {thread.name for thread in threading.enumerate()}
    codes: list[str] = []
    threads = [threading.Thread(target=lambda: codes.append(code_of(fetcher, server.url()))) for _ in range(50)]
    started_s = time.monotonic()
    for thread in threads:
        thread.start()
    watchdogs = [thread for thread in threading.enumerate() if thread.name == "fetch-deadlines"]
    for thread in threads:
        thread.join()
    assert codes == ["fetch_timeout"] * 50
    assert time.monotonic() - started_s < TIME_S + 3
    assert len(watchdogs) == 1
    assert "fetch-deadlines" not in before


def test_a_deadline_s_watch_that_has_ended_never_fires() -> None:
    watchdog = Watchdog()
    ours, theirs = socket.socketpair()
    with ours, theirs, theirs.dup() as dup:
        watch = watchdog.watch(ours, CancelScope(time.monotonic() + 0.05))
        assert watch.end() is False
        other = watchdog.watch(dup, CancelScope(time.monotonic() + 0.1))
        assert ours.recv(1) == b""  # the second watch fired; by now the first one would have fired long ago
        assert other.end() is True
        assert watch.end() is False
    watchdog.close()


def test_cancelling_ends_a_running_download_at_once(serve: Serve, make_fetcher: MakeFetcher) -> None:
    scope = CancelScope(time.monotonic() + 60)

    def script(exchange: Exchange) -> None:
        scope.cancel()
        exchange.stall()

    server = serve(script)
    started_s = time.monotonic()
    with pytest.raises(Cancelled):
        make_fetcher(server, timeout_s=60).fetch(server.url(), scope=scope)
    assert time.monotonic() - started_s < 5
    assert server.connections == 1


def test_cancelling_ends_the_pause_before_another_attempt(serve: Serve, make_fetcher: MakeFetcher) -> None:
    scope = CancelScope(time.monotonic() + 60)
    timer = threading.Timer(0.2, scope.cancel)

    def script(exchange: Exchange) -> None:
        exchange.answer(status="503 Busy", headers=["Retry-After: 40"])
        timer.start()

    server = serve(script)
    started_s = time.monotonic()
    with pytest.raises(Cancelled):
        make_fetcher(server, timeout_s=60).fetch(server.url(), scope=scope)
    assert time.monotonic() - started_s < 5
    timer.join()


def test_a_cancellation_after_a_download_has_ended_has_no_effect(serve: Serve, make_fetcher: MakeFetcher) -> None:
    server = serve(lambda exchange: exchange.answer(IMAGE))
    fetcher = make_fetcher(server)
    scope = CancelScope(time.monotonic() + 60)
    fetcher.fetch(server.url("/first"), scope=scope)
    scope.cancel()
    assert fetcher.fetch(server.url("/second")) == IMAGE
    assert server.connections == 1


def test_closing_ends_running_downloads(serve: Serve, make_fetcher: MakeFetcher) -> None:
    arrived = threading.Event()

    def script(exchange: Exchange) -> None:
        arrived.set()
        exchange.stall()

    server = serve(script)
    fetcher = make_fetcher(server, timeout_s=60)
    codes: list[str] = []
    thread = threading.Thread(target=lambda: codes.append(code_of(fetcher, server.url())))
    thread.start()
    arrived.wait(5)
    fetcher.close()
    thread.join(5)
    assert codes == ["fetch_timeout"]
    assert server.connections == 1
    with pytest.raises(RuntimeError, match="closed"):
        fetcher.fetch(server.url())
