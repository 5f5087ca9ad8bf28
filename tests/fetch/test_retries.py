"""After a transient failure a download is repeated, after growing pauses, until its deadline."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from tests.fetch.conftest import IMAGE, MakeFetcher, Serve, code_of
from tests.fetch.servers import Exchange, Script
from worker.fetch.failures import FetchFailed
from worker.fetch.retries import FIRST_BACK_OFF_S, MAX_ATTEMPTS, pause_before_next_s, retry_after_s


def hangs_up_after(data: bytes) -> Script:
    def script(exchange: Exchange) -> None:
        exchange.send(data)
        exchange.hang_up()

    return script


TRANSIENT: dict[str, Script] = {
    "503": lambda exchange: exchange.answer(b"busy", "503 Service Unavailable"),
    "429": lambda exchange: exchange.answer(b"slow down", "429 Too Many Requests"),
    "hang-up": hangs_up_after(b""),
    "reset": lambda exchange: exchange.reset(),
    "short body": hangs_up_after(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"),
}
FINAL: dict[str, Script] = {
    "404": lambda exchange: exchange.answer(b"gone", "404 Not Found"),
    "no HTTP": hangs_up_after(b"-ERR\r\n"),
    "empty": lambda exchange: exchange.answer(b""),
    "bad redirect": lambda exchange: exchange.redirect("file:///etc/passwd"),
}


@pytest.mark.parametrize("trouble", TRANSIENT)
def test_a_transient_failure_is_tried_again(trouble: str, serve: Serve, make_fetcher: MakeFetcher) -> None:
    def script(exchange: Exchange) -> None:
        if len(server.requests) == 1:
            TRANSIENT[trouble](exchange)
        else:
            exchange.answer(IMAGE)

    server = serve(script)
    assert make_fetcher(server).fetch(server.url()) == IMAGE
    assert len(server.requests) == 2


@pytest.mark.parametrize("trouble", TRANSIENT)
def test_a_failure_that_lasts_is_reported_after_a_few_attempts(
    trouble: str, serve: Serve, make_fetcher: MakeFetcher
) -> None:
    server = serve(TRANSIENT[trouble])
    assert code_of(make_fetcher(server), server.url()) in ("http_status", "connect_failed", "truncated")
    assert len(server.requests) == MAX_ATTEMPTS


@pytest.mark.parametrize("trouble", FINAL)
def test_a_failure_that_is_not_transient_is_reported_at_once(
    trouble: str, serve: Serve, make_fetcher: MakeFetcher
) -> None:
    server = serve(FINAL[trouble])
    code_of(make_fetcher(server), server.url())
    assert len(server.requests) == 1


def test_a_silent_server_is_tried_again_while_time_is_left(
    serve: Serve, make_fetcher: MakeFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.fetch.dialer.SILENCE_TIMEOUT_S", 0.2)
    monkeypatch.setattr("worker.fetch.dialer.SILENCE_SHARE", 0.0)

    def script(exchange: Exchange) -> None:
        if exchange.connection == 1:
            exchange.stall()
        else:
            exchange.answer(IMAGE)

    server = serve(script)
    assert make_fetcher(server).fetch(server.url()) == IMAGE


def test_a_server_may_say_how_long_to_wait(serve: Serve, make_fetcher: MakeFetcher) -> None:
    arrived_s: list[float] = []

    def script(exchange: Exchange) -> None:
        arrived_s.append(time.monotonic())
        if len(arrived_s) == 1:
            exchange.answer(status="429 Too Many Requests", headers=["Retry-After: 1"])
        else:
            exchange.answer(IMAGE)

    server = serve(script)
    assert make_fetcher(server).fetch(server.url()) == IMAGE
    assert arrived_s[1] - arrived_s[0] >= 1


def test_a_server_that_asks_for_a_pause_beyond_the_deadline_is_not_asked_again(
    serve: Serve, make_fetcher: MakeFetcher
) -> None:
    server = serve(lambda exchange: exchange.answer(status="503 Down", headers=["Retry-After: 3600"]))
    started_s = time.monotonic()
    assert code_of(make_fetcher(server), server.url()) == "http_status"
    assert time.monotonic() - started_s < 3
    assert len(server.requests) == 1


def test_pauses_grow_and_are_random() -> None:
    failure = FetchFailed("connect_failed", "no.")
    first = {pause_before_next_s(failure, 1, 10.0) for _ in range(50)}
    assert len(first) > 40
    assert all(FIRST_BACK_OFF_S / 2 <= (pause_s or 0) <= FIRST_BACK_OFF_S for pause_s in first)
    assert (pause_before_next_s(failure, 2, 10.0) or 0) >= FIRST_BACK_OFF_S
    assert pause_before_next_s(failure, 1, 0.05) is None
    assert pause_before_next_s(failure, MAX_ATTEMPTS, 10.0) is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 7 ", 7),
        (None, None),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("9" * 40, None),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
    ],
)
def test_a_retry_after_is_read_or_ignored(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header) == seconds


def test_a_retry_after_may_be_a_date() -> None:
    header = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 58 <= (retry_after_s(header) or 0) <= 60
