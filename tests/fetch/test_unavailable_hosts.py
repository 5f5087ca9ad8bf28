"""Downloads from a host that always fails are refused for a while; these tests show which failures count."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from producer.errors import JobFailed
from tests.fetch.conftest import IMAGE, MakeFetcher, Serve, code_of, within
from tests.fetch.servers import Exchange, Script, ScriptedServer
from worker.concurrency.cancel_scope import Cancelled, CancelScope
from worker.fetch import Fetcher
from worker.fetch.circuits import MIN_BAD


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.fetch.retries.FIRST_BACK_OFF_S", 0.001)


def answers(status: str) -> Script:
    return lambda exchange: exchange.answer(status=status)


def raw(data: bytes) -> Script:
    def script(exchange: Exchange) -> None:
        exchange.send(data)
        exchange.hang_up()

    return script


def is_left_alone(fetcher: Fetcher, server: ScriptedServer) -> bool:
    """Return whether the next job is refused without a request."""
    before = len(server.requests)
    try:
        fetcher.fetch(server.url("/CANARY?CANARY"))
        return False
    except JobFailed as error:
        failure = error
    assert (failure.code == "host_unavailable") == (len(server.requests) == before)
    assert failure.code != "host_unavailable" or failure.retryable
    return failure.code == "host_unavailable"


def fail(fetcher: Fetcher, server: ScriptedServer, times: int, **options: Any) -> None:
    for _ in range(times):
        assert code_of(fetcher, server.url(), **options) != "host_unavailable"


FAULTS: dict[str, Script] = {
    "500": answers("500 Oops"),
    "503": answers("503 Down"),
    "429": answers("429 Slow Down"),
    "hangs up": raw(b""),
    "breaks off within the body": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbody"),
    "says nothing": lambda exchange: exchange.stall(),
    "never ends": lambda exchange: exchange.drip(b"HTTP/1.1 100 Continue\r\n\r\n", 0.05),
}
NO_FAULTS: dict[str, Script] = {
    "404": answers("404 Not Found"),
    "403": answers("403 Forbidden"),
    "no bytes": answers("200 OK"),
    "too large": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"),
    "compressed": raw(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx"),
    "no HTTP": raw(b"-ERR\r\n"),
    "redirects to a blocked address": lambda exchange: exchange.redirect("http://10.0.0.1/"),
    "redirects to a name that does not exist": lambda exchange: exchange.redirect("http://nowhere.example/"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_host_whose_every_download_fails_by_its_fault_gets_no_more_requests(
    fault: str, serve: Serve, make_fetcher: MakeFetcher
) -> None:
    server = serve(FAULTS[fault])
    fetcher = make_fetcher(server, timeout_s=0.2)
    fail(fetcher, server, MIN_BAD)
    assert is_left_alone(fetcher, server)


@pytest.mark.parametrize("answer", NO_FAULTS)
def test_a_response_without_a_usable_image_does_not_count_against_its_host(
    answer: str, serve: Serve, make_fetcher: MakeFetcher
) -> None:
    def resolve(_host: str, _port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    server = serve(NO_FAULTS[answer])
    fetcher = make_fetcher(server, resolve=resolve)
    fail(fetcher, server, 2 * MIN_BAD)
    assert not is_left_alone(fetcher, server)


def test_a_host_that_refuses_connections_is_not_dialled_again(make_fetcher: MakeFetcher, dialled: list[Any]) -> None:
    fetcher = make_fetcher(resolve=lambda *_: ["1.1.1.1"])
    for _ in range(MIN_BAD):
        assert code_of(fetcher, "http://h.example/") == "connect_failed"
    del dialled[:]
    assert code_of(fetcher, "http://h.example/") == "host_unavailable"
    assert dialled == []
    assert code_of(fetcher, "http://other.example/") == "connect_failed"


@pytest.mark.parametrize("trouble", [socket.gaierror(socket.EAI_AGAIN, "try again"), "hangs"])
def test_a_name_server_s_failure_does_not_count_against_the_host(
    trouble: Any, serve: Serve, make_fetcher: MakeFetcher
) -> None:
    server = serve(lambda exchange: exchange.answer(IMAGE))
    works = False

    def resolve(_host: str, _port: int) -> list[str]:
        if works:
            return ["127.0.0.1"]
        if isinstance(trouble, Exception):
            raise trouble
        time.sleep(0.3)
        return []

    fetcher = make_fetcher(server, timeout_s=0.1, resolve=resolve)
    for _ in range(MIN_BAD):
        assert code_of(fetcher, server.url(host="h.example")) in ("dns_failed", "fetch_timeout")
    works = True
    assert fetcher.fetch(server.url(host="h.example")) == IMAGE


def test_cancelled_jobs_and_jobs_with_short_timeouts_do_not_count_against_the_host(
    serve: Serve, make_fetcher: MakeFetcher
) -> None:
    server = serve(lambda exchange: exchange.answer(IMAGE) if exchange.path == "/good" else exchange.stall())
    fetcher = make_fetcher(server)
    for _ in range(MIN_BAD):
        fail(fetcher, server, 1, scope=within(0.02))
    for _ in range(MIN_BAD):
        scope = CancelScope(time.monotonic() + 60)
        with ThreadPoolExecutor(1) as pool:
            before = len(server.requests)
            download = pool.submit(fetcher.fetch, server.url(), scope=scope)
            while len(server.requests) == before:
                time.sleep(0.001)
            scope.cancel()
            assert isinstance(download.exception(), Cancelled)
    assert fetcher.fetch(server.url("/good")) == IMAGE


def test_a_job_counts_once_however_many_attempts_it_makes(serve: Serve, make_fetcher: MakeFetcher) -> None:
    server = serve(answers("503 Down"))
    fetcher = make_fetcher(server)
    fail(fetcher, server, MIN_BAD - 1)
    assert len(server.requests) == 3 * (MIN_BAD - 1)
    assert not is_left_alone(fetcher, server)
    assert is_left_alone(fetcher, server)


def test_the_job_that_opens_a_circuit_fails_with_the_host_s_own_error(serve: Serve, make_fetcher: MakeFetcher) -> None:
    server = serve(answers("503 Down"))
    fetcher = make_fetcher(server)
    fail(fetcher, server, MIN_BAD - 1)
    del server.requests[:]
    assert code_of(fetcher, server.url()) == "http_status"
    assert len(server.requests) == 1  # further attempts would only burden the host


def test_a_redirect_to_an_unavailable_host_fails_at_once(serve: Serve, make_fetcher: MakeFetcher) -> None:
    broken = serve(answers("503 Down"))
    server = serve(lambda exchange: exchange.redirect(broken.url()))
    fetcher = make_fetcher(server, broken)
    fail(fetcher, broken, MIN_BAD)
    assert is_left_alone(fetcher, broken)
    assert code_of(fetcher, server.url()) == "host_unavailable"
    assert len(server.requests) == 1


def test_a_host_that_recovers_is_used_again(
    serve: Serve, make_fetcher: MakeFetcher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("worker.fetch.circuits.FIRST_PAUSE_S", 0.5)
    broken = True
    server = serve(lambda exchange: exchange.answer(IMAGE, "503 Down" if broken else "200 OK"))
    fetcher = make_fetcher(server)
    caplog.set_level("INFO")
    fail(fetcher, server, MIN_BAD)
    assert is_left_alone(fetcher, server)
    broken = False
    while is_left_alone(fetcher, server):
        time.sleep(0.02)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: fetcher.fetch(server.url()), range(50))) == [IMAGE] * 50
    lines = [record.getMessage() for record in caplog.records if record.name == "worker.fetch.circuits"]
    assert len(lines) == 2
    assert "CANARY" not in caplog.text
    assert all(f"host 127.0.0.1:{server.port}" in line for line in lines)
