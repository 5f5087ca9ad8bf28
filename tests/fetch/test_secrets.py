"""A signed URL is a secret: no message, log line, exception or repr may contain any of it."""

from __future__ import annotations

import logging
import socket
import traceback
import warnings
from collections.abc import Callable

import pytest

from producer.errors import JobFailed
from tests.fetch.conftest import IMAGE, MakeFetcher, Serve
from tests.fetch.servers import Exchange, Script

SECRETS = ("CANARY", "127.0.0.1", "h.example")


def raw(data: bytes) -> Script:
    def script(exchange: Exchange) -> None:
        exchange.send(data)
        exchange.hang_up()

    return script


OK = b"HTTP/1.1 200 OK\r\n"
PATHS: dict[str, Script] = {
    "success": lambda exchange: exchange.answer(IMAGE),
    "success with a broken header": raw(OK + b"no colon CANARY\r\n: x\r\nContent-Length: 4\r\n\r\nbody"),
    "both lengths": raw(OK + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "two lengths": raw(OK + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\n"),
    "404": lambda exchange: exchange.answer(b"CANARY", "404 CANARY"),
    "503": lambda exchange: exchange.answer(b"CANARY", "503 CANARY"),
    "no HTTP": raw(b"CANARY\r\n\r\n"),
    "hang-up": raw(b""),
    "truncated": raw(OK + b"Content-Length: 9\r\n\r\nCANARY"),
    "bad chunk": raw(OK + b"Transfer-Encoding: chunked\r\n\r\nCANARY\r\n"),
    "too many headers": raw(OK + b"X: CANARY\r\n" * 200 + b"\r\n"),
    "too large": lambda exchange: exchange.answer(b"CANARY" * 1_000_000),
    "redirect to a secret": lambda exchange: exchange.redirect("http://user:CANARY@h.example/CANARY"),
    "redirect to nowhere": lambda exchange: exchange.redirect("//[CANARY"),
    "redirect loop": lambda exchange: exchange.redirect(exchange.path),
    "stall": lambda exchange: exchange.stall(),
}


@pytest.mark.parametrize("path", PATHS)
def test_no_outcome_of_a_download_shows_the_url(
    path: str, serve: Serve, make_fetcher: MakeFetcher, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(PATHS[path])
    fetcher = make_fetcher(server, timeout_s=0.5, resolve=lambda *_: ["127.0.0.1"])
    url = server.url("/CANARY.png?X-Amz-Signature=CANARY", "h.example")
    shows_nothing(lambda: fetcher.fetch(url), caplog)


@pytest.mark.parametrize(
    "url",
    [
        "http://user:CANARY@h.example/",
        "http://CANARY/",
        "CANARY://h.example/",
        "data:image/png;base64,CANARY",
        "http://h.example:CANARY/",
        "http://[CANARY]/",
        "http://h.example/CANARY\x00",
        "http://CANARY..h.example/",
        "http://127.0.0.1/CANARY",
        "http://h.example:81/CANARY",
        "http://h.example/CANARY",
    ],
)
def test_no_refusal_shows_the_url(url: str, make_fetcher: MakeFetcher, caplog: pytest.LogCaptureFixture) -> None:
    def resolve(host: str, _port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, f"no such host {host}: CANARY")

    fetcher = make_fetcher(resolve=resolve)
    shows_nothing(lambda: fetcher.fetch(url), caplog)


def test_an_unexpected_exception_shows_only_its_type(
    make_fetcher: MakeFetcher, caplog: pytest.LogCaptureFixture
) -> None:
    def resolve(host: str, _port: int) -> list[str]:
        raise LookupError(f"{host} CANARY")

    fetcher = make_fetcher(resolve=resolve)
    shows_nothing(lambda: fetcher.fetch("http://h.example/CANARY"), caplog)
    assert "unexpected LookupError in resolve" in caplog.text


def shows_nothing(fetch: Callable[[], object], caplog: pytest.LogCaptureFixture) -> None:
    """Run a download with all logging on, and search everything that it leaves behind for the secrets."""
    caplog.set_level(logging.DEBUG)
    seen = ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            fetch()
        except JobFailed as failure:
            seen = "".join(traceback.format_exception(failure)) + repr(failure) + str(failure) + repr(failure.args)
            # The traceback quotes these lines of this file.
            seen = "\n".join(line for line in seen.splitlines() if "fetcher.fetch(" not in line)
    seen += caplog.text + "".join(str(warning.message) for warning in caught)
    for secret in SECRETS:
        assert secret not in seen
