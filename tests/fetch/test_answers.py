"""A good HTTP response has status 200, uncompressed bytes, the announced length, and no more than the maximum."""

from __future__ import annotations

import gzip
import threading

import pytest

from producer.errors import is_retryable_status
from tests.fetch.conftest import IMAGE, MakeFetcher, Serve, code_of, failure_of
from tests.fetch.servers import Exchange, Script
from worker.fetch.fetcher import ACCEPT


@pytest.fixture(autouse=True)
def one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.fetch.retries.MAX_ATTEMPTS", 1)


def raw(*pieces: bytes) -> Script:
    """Return a script that sends the bytes and hangs up."""

    def script(exchange: Exchange) -> None:
        for piece in pieces:
            exchange.send(piece)
        exchange.hang_up()

    return script


OK = b"HTTP/1.1 200 OK\r\n"
WHOLE_ANSWERS = {
    "a length": OK + b"Content-Length: 4\r\n\r\nbody",
    "a length, and more bytes than that": OK + b"Content-Length: 4\r\n\r\nbody and more",
    "the same length twice": OK + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nbody",
    "no length": OK + b"\r\nbody",
    "no length, HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\nbody",
    "chunks": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2;x=y\r\ndy\r\n0\r\nTrailer: x\r\n\r\n",
    "no reason": b"HTTP/1.1 200\r\nContent-Length: 4\r\n\r\nbody",
    "100 Continue first": b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 4\r\n\r\nbody",
    **{
        f"{status} first": b"HTTP/1.1 %b\r\nLink: </x>\r\n\r\n" % status.encode()
        + OK
        + b"Content-Length: 4\r\n\r\nbody"
        for status in ("102 Processing", "103 Early Hints", "104", "199 Whatever")
    },
    "interim answers of all kinds first": b"HTTP/1.1 100\r\n\r\nHTTP/1.1 103\r\nA: b\r\n\r\n" * 50
    + (OK + b"Content-Length: 4\r\n\r\nbody"),
    **{
        f"the coding {coding!r}": OK + coding + b"\r\nContent-Length: 4\r\n\r\nbody"
        for coding in (
            b"Content-Encoding: identity",
            b"Content-Encoding:",
            b"Content-Encoding: ,",
            b"Content-Encoding: aws-chunked",
            b"Content-Encoding: utf-8, none",
            b"Content-Encoding: x-unknown, identity;q=1, \x0bidentity, \xa0identity",
            b"Content-Encoding: identity, identity",
            b"content-encoding: \t, Identity ,,IDENTITY,",
            b"Content-Encoding: identity\r\nContent-Encoding: identity",
            b"Content-Encoding: identity\r\nContent-Encoding:",
        )
    },
    "150 cookies": OK + b"Set-Cookie: a=b\r\n" * 150 + b"Content-Length: 4\r\n\r\nbody and more",
    "1,000 lines, half of them folded": OK + b"X: y\r\n z\r\n" * 499 + b"content-LENGTH:\r\n 4\r\n\r\nbody and more",
    "a wrong content type": OK + b"Content-Type: text/html\r\nContent-Length: 4\r\n\r\nbody",
}


@pytest.mark.parametrize("answer", WHOLE_ANSWERS)
def test_the_body_of_a_complete_response_is_returned(answer: str, serve: Serve, make_fetcher: MakeFetcher) -> None:
    server = serve(raw(WHOLE_ANSWERS[answer]))
    assert make_fetcher(server).fetch(server.url()) == b"body"


BROKEN_ANSWERS = {
    "nothing": (b"", "connect_failed"),
    "half a status line": (b"HTTP/1.1 20", "bad_response"),
    "a Redis banner": (b"-ERR unknown command 'GET'\r\n", "bad_response"),
    "HTTP/0.9": (b"<html>hello</html>", "bad_response"),
    "an SSH banner": (b"SSH-2.0-OpenSSH_9.6\r\n", "bad_response"),
    "HTTP/2": (b"HTTP/2 200 OK\r\n\r\n", "bad_response"),
    "a status that is no number": (b"HTTP/1.1 abc OK\r\n\r\n", "bad_response"),
    "too many headers": (
        OK + b"".join(b"X-%d: y\r\n" % number for number in range(1_001)) + b"\r\nbody",
        "bad_response",
    ),
    "a header of 70 KB": (OK + b"X: " + b"y" * 70_000 + b"\r\n\r\nbody", "bad_response"),
    "a negative length": (OK + b"Content-Length: -5\r\n\r\nbody", "bad_response"),
    "a length that is no number": (OK + b"Content-Length: 3x\r\n\r\nbody", "bad_response"),
    "a length in Arabic digits": (OK + "Content-Length: ٤\r\n\r\nbody".encode(), "bad_response"),
    "two lengths": (OK + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nbody", "bad_response"),
    "two lengths in one": (OK + b"Content-Length: 4, 5\r\n\r\nbody", "bad_response"),
    "a length and chunks": (
        OK + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        "bad_response",
    ),
    "an unknown transfer encoding": (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "bad_response"),
    "fewer bytes than announced": (OK + b"Content-Length: 5\r\n\r\nbody", "truncated"),
    "no last chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n", "truncated"),
    "half a chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n8\r\nbody", "truncated"),
    "half a last chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0", "truncated"),
    "half a trailer": (OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nA: b", "truncated"),
    "half the end of a chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r", "truncated"),
    "no bytes": (OK + b"Content-Length: 0\r\n\r\n", "empty"),
    "no chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "empty"),
    "no length and no bytes": (OK + b"\r\n", "empty"),
    "a length of 5 GB": (OK + b"Content-Length: 5000000000\r\n\r\nbody", "too_large"),
    "a length of 30 digits": (OK + b"Content-Length: " + b"9" * 30 + b"\r\n\r\nbody", "bad_response"),
}


@pytest.mark.parametrize("answer", BROKEN_ANSWERS)
def test_each_kind_of_broken_response_has_its_error_code(answer: str, serve: Serve, make_fetcher: MakeFetcher) -> None:
    data, code = BROKEN_ANSWERS[answer]
    server = serve(raw(data))
    assert code_of(make_fetcher(server), server.url()) == code


@pytest.mark.parametrize(
    "head",
    [
        b"X: y\r\n" * 1_001,
        b"X: y\r\n" + b" z\r\n" * 1_000,
        b"X: " + b"y" * 70_000 + b"\r\n",
        b"X: %b\r\n" % (b"y" * 1_000) * 70,
    ],
    ids=["lines", "folded lines", "a line", "long lines"],
)
def test_a_head_that_is_too_large_is_reported_with_its_limit(
    head: bytes, serve: Serve, make_fetcher: MakeFetcher
) -> None:
    server = serve(raw(OK + head + b"Content-Length: 4\r\n\r\nbody"))
    failure = failure_of(lambda: make_fetcher(server).fetch(server.url()))
    assert failure.code == "bad_response"
    assert failure.message == "the response's headers have more than 65,536 bytes or 1,000 lines; check the server."


def test_a_connection_that_is_reset_within_the_body_is_a_truncated_response(
    serve: Serve, make_fetcher: MakeFetcher
) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(OK + b"Content-Length: 100000\r\n\r\n" + b"x" * 70_000)
        exchange.reset()

    server = serve(script)
    assert code_of(make_fetcher(server), server.url()) == "truncated"


@pytest.mark.parametrize("framing", [b"Content-Length: %d", b"Transfer-Encoding: chunked", b"Connection: close"])
@pytest.mark.parametrize(("size_bytes", "fits"), [(99_999, True), (100_000, True), (100_001, False)])
def test_the_maximum_of_bytes_holds_with_and_without_a_content_length(
    framing: bytes, size_bytes: int, fits: bool, serve: Serve, make_fetcher: MakeFetcher
) -> None:
    body = b"x" * size_bytes
    header = framing % size_bytes if b"%d" in framing else framing
    coded = b"%x\r\n%b\r\n0\r\n\r\n" % (size_bytes, body) if b"chunked" in framing else body
    server = serve(raw(OK + header + b"\r\n\r\n" + coded))
    fetcher = make_fetcher(server, max_bytes=100_000)
    if fits:
        assert fetcher.fetch(server.url()) == body
    else:
        assert code_of(fetcher, server.url()) == "too_large"


def test_endless_chunks_end_at_the_maximum_of_bytes(serve: Serve, make_fetcher: MakeFetcher) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        while True:
            exchange.send(b"10000\r\n" + b"x" * 65_536 + b"\r\n")

    server = serve(script)
    assert code_of(make_fetcher(server), server.url()) == "too_large"


@pytest.mark.parametrize(
    "coding",
    [
        *("gzip", "x-gzip", "GZIP", "deflate", "br", "zstd", "compress", "gzip, gzip, gzip"),
        *("identity, gzip", "aws-chunked,gzip", ",gzip", "identity\r\nContent-Encoding: gzip"),
    ],
)
def test_compressed_bodies_are_refused_and_never_decompressed(
    coding: str, serve: Serve, make_fetcher: MakeFetcher
) -> None:
    bomb = gzip.compress(b"\0" * 10_000_000)
    server = serve(lambda exchange: exchange.answer(bomb, headers=[f"Content-Encoding: {coding}"]))
    assert code_of(make_fetcher(server), server.url()) == "bad_response"
    assert "Accept-Encoding: identity\r\n" in server.requests[0]


@pytest.mark.parametrize(
    "status",
    [
        201,
        202,
        204,
        205,
        206,
        226,
        300,
        304,
        305,
        306,
        400,
        401,
        403,
        404,
        408,
        410,
        418,
        425,
        429,
        451,
        500,
        501,
        502,
        503,
        504,
        599,
        600,
        999,
        101,
    ],
)
def test_any_status_but_200_is_a_failure_that_names_the_status(
    status: int, serve: Serve, make_fetcher: MakeFetcher
) -> None:
    server = serve(lambda exchange: exchange.answer(IMAGE, status=f"{status} Whatever"))
    failure = failure_of(lambda: make_fetcher(server).fetch(server.url()))
    assert failure.code == "http_status"
    assert str(status) in failure.message
    assert failure.retryable == is_retryable_status(status)
    assert failure.retryable == (status in (408, 425, 429) or 500 <= status <= 599)


def test_a_request_identifies_nameshot_and_contains_nothing_else(serve: Serve, make_fetcher: MakeFetcher) -> None:
    server = serve(lambda exchange: exchange.answer(IMAGE))
    make_fetcher(server).fetch(server.url("/a%0d%0aX-Injected:%201?b=c"))
    assert sorted(server.requests[0].strip().split("\r\n")) == [
        "Accept-Encoding: identity",
        f"Accept: {ACCEPT}",
        "GET /a%0d%0aX-Injected:%201?b=c HTTP/1.1",
        f"Host: 127.0.0.1:{server.port}",
        "User-Agent: nameshot",
    ]


def test_a_large_body_arrives_complete(serve: Serve, make_fetcher: MakeFetcher) -> None:
    body = bytes(range(256)) * 20_000
    server = serve(lambda exchange: exchange.answer(body))
    fetcher = make_fetcher(server, max_bytes=20_000_000)
    bodies: list[bytes] = []
    threads = [threading.Thread(target=lambda: bodies.append(fetcher.fetch(server.url()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bodies == [body] * 4
