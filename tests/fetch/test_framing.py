"""However a server frames its response, HTTP determines its body, and the maximum of bytes how much a worker reads."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.fetch.conftest import MakeFetcher, Serve, code_of
from tests.fetch.servers import Exchange
from tests.fetch.test_answers import OK, one_attempt, raw

__all__ = ["one_attempt"]

MAX_BYTES = 1_000_000
#: What a worker's process may occupy besides the body itself: buffers, and what its allocator keeps.
SLACK_BYTES = 6_000_000
#: More than a worker may read of any of the floods, and enough to show in its memory.
FLOOD_BYTES = 100_000_000

CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"

ALLOWED = {
    "leading zeros": CHUNKED + b"0000000004\r\nbody\r\n000\r\n\r\n",
    "more zeros than a number has digits": CHUNKED + b"0" * 1_000 + b"4\r\nbody\r\n" + LAST,
    "upper and lower case": CHUNKED + b"A\r\nbodybodybo\r\na\r\nbodybodybo\r\n" + LAST,
    "extensions": CHUNKED + b'2;a;b=c ; d = "e;\\"f\xff"\r\nbo\r\n2\t;x\r\ndy\r\n0;last\r\n\r\n',
    "a long extension": CHUNKED + b"4;x=" + b"y" * 4_000 + b"\r\nbody\r\n" + LAST,
    "trailers": CHUNKED + b"4\r\nbody\r\n0\r\nA: b\r\nContent-Length: 9\r\nX:\r\n folded\r\n\r\n",
    "trailers whose lines end as fields' lines may": CHUNKED + b"4\r\nbody\r\n0\r\nA: b\n\n",
    "a connection that ends with the last chunk": CHUNKED + b"4\r\nbody\r\n0\r\n",
    "a coding in capitals": OK + b"Transfer-Encoding: \tCHUNKED \r\n\r\n4\r\nbody\r\n" + LAST,
    **{
        f"the coding {coding!r}": OK + b"Transfer-Encoding: " + coding + b"\r\n\r\n4\r\nbody\r\n" + LAST
        for coding in (b"chunked,", b", ,chunked", b"\r\nTransfer-Encoding: chunked", b" \r\n chunked")
    },
    "sizes that are padded": CHUNKED + b"4 \r\nbody\r\n0\t  \r\n\r\n",
    "a size that is padded behind an extension": CHUNKED + b"4;a=b \r\nbody\r\n" + LAST,
    "HTTP/1.0 with a length": b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nbody",
    "a minor version to come": b"HTTP/1.9 200 OK\r\nContent-Length: 4\r\n\r\nbody",
    "a length with zeros and blanks": OK + b"Content-Length: \t 0004 \r\n\r\nbody",
    "a folded length": OK + b"Content-Length:\r\n  4\r\n\r\nbody and more",
    "lines that end with LF": b"HTTP/1.1 200 OK\nContent-Length: 4\n\nbody",
}
REFUSED = {
    **{
        f"the chunk size {size!r}": CHUNKED + size + b"\r\nbody\r\n" + LAST
        for size in (
            *(
                b"-1",
                b"-4",
                b"-0",
                b"+4",
                b"0x4",
                b"0X4",
                b"4h",
                b"g",
                b"1_0",
                b"",
                b" 4",
                b"\t4",
                b"4\x0b",
                b"4 4",
            ),
            *(
                b"4,4",
                b"4.0",
                b"4p0",
                b"4;",
                b"4;;a",
                b"4;=b",
                b"4;a=",
                b'4;a="b',
                b"4;a b",
                b"4;a\0",
                b"\xb2",
                b"\x0b4",
            ),
            *("４".encode(), b"4\r", b"4\r\r", b"4;a=b\rc", b";a", b"4;x=" + b"y" * 70_000),
        )
    },
    "a chunk size that ends with LF": CHUNKED + b"4\nbody\r\n" + LAST,
    "a chunk that ends with LF": CHUNKED + b"4\r\nbody\n" + LAST,
    "a chunk that does not end": CHUNKED + b"4\r\nbodyandmore\r\n" + LAST,
    "a chunk that ends with something else": CHUNKED + b"4\r\nbody\r\r" + LAST,
    "a trailer that is no field": CHUNKED + b"4\r\nbody\r\n0\r\nno field\r\n\r\n",
    "a trailer with a bare CR": CHUNKED + b"4\r\nbody\r\n0\r\nA: b\rC: d\r\n\r\n",
    "a folded line before any trailer": CHUNKED + b"4\r\nbody\r\n0\r\n A: b\r\n\r\n",
    "more trailers than an answer has fields": CHUNKED + b"4\r\nbody\r\n0\r\n" + b"A: b\r\n" * 1_001 + b"\r\n",
    **{
        f"the coding {coding!r}": OK + b"Transfer-Encoding: " + coding + b"\r\n\r\n4\r\nbody\r\n" + LAST
        for coding in (
            *(b"", b"identity", b"gzip", b"x", b"chunked, chunked", b"gzip, chunked", b"chunked, gzip"),
            *(b"chunked;q=1", b"\x0bchunked", b"chunked\xa0", b",", b"chunked, identity"),
        )
    },
    "two codings": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n" + LAST,
    "a coding and a length of 0": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n4\r\nbody\r\n" + LAST,
    "a coding in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n" + LAST,
    **{
        f"the length {length!r}": OK + b"Content-Length: " + length + b"\r\n\r\nbody"
        for length in (b"-4", b"+4", b"0x4", b"4_0", b"4.0", b"4, 4", b"4,", b"", b"4 4", b"\x0b4", b"4\x85", b"4;")
    },
    "a length and a negative one": OK + b"Content-Length: 4\r\nContent-Length: -4\r\n\r\nbody",
    **{
        f"the status line {line!r}": line + b"\r\nContent-Length: 4\r\n\r\nbody"
        for line in (
            *(b"HTTP/0.9 200 OK", b"HTTP/1 200 OK", b"HTTP/1.10 200 OK", b"HTTP/2.0 200 OK", b"http/1.1 200 OK"),
            *(b"HTTP/1.1  200 OK", b"HTTP/1.1 +200 OK", b"HTTP/1.1 2_00 OK", b"HTTP/1.1 0200 OK", b"HTTP/1.1 200OK"),
            *(b"HTTP/1.1 20 OK", b"HTTP/1.1\t200 OK", b" HTTP/1.1 200 OK", b"HTTP/1.1 200 O\0K", b"HTTP/1.1 200 O\rK"),
        )
    },
    **{
        f"the header line {line!r}": OK + line + b"\r\nContent-Length: 4\r\n\r\nbody"
        for line in (
            *(b"no colon here", b": no name", b" folded", b"A : b", b"A\x0b: b", b"A(b): c", b"\xe9: b", b"A: b\rC: d"),
            *(b"A: b\0", b"From me to you", b"HTTP/1.1 200 OK"),
        )
    },
}


@pytest.mark.parametrize("answer", ALLOWED)
def test_every_framing_that_http_allows_is_read(answer: str, serve: Serve, make_fetcher: MakeFetcher) -> None:
    server = serve(raw(ALLOWED[answer]))
    assert make_fetcher(server).fetch(server.url()) in (b"body", b"bodybodybo" * 2)


@pytest.mark.parametrize("answer", REFUSED)
def test_framing_that_http_does_not_allow_is_a_bad_response_at_once(
    answer: str, serve: Serve, make_fetcher: MakeFetcher
) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(REFUSED[answer])
        exchange.stall()

    server = serve(script)
    assert code_of(make_fetcher(server, timeout_s=60), server.url()) == "bad_response"
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "beginning",
    [
        *(
            b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80",
            b"\x15\x03\x03\0\x02\x02F",
            b"\x16\x03\x01",
            b"\0",
            b"GIF89a",
            b"\x89PNG",
        ),
        *(b"<html>", b"220 mail ready", b"SSH-2.0-x", b"-ERR", b"\r", b" HTTP/1.1 200", b"http/1.1 200"),
        *(b"HTTP/2", b"HTTP/0", b"HTTP/1 ", b"HTTP/1.1\t", b"HTTP/1.10", b"HTTP/1.1  ", b"HTTP/1.1 0", b"HTTP/1.1 2O"),
        b"HTTP/1.1 103 Early Hints\r\n\r\n\x89PNG",
    ],
)
def test_bytes_that_cannot_begin_a_response_are_a_bad_response_before_their_line_ends(
    beginning: bytes, serve: Serve, make_fetcher: MakeFetcher
) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(beginning)
        exchange.stall()

    server = serve(script)
    assert code_of(make_fetcher(server, timeout_s=60), server.url()) == "bad_response"
    assert len(server.requests) == 1


@pytest.mark.parametrize("size", ["100001", "FFFFFFFF", "7fffffffffffffff", "ffffffffffffffff", "1" + "0" * 3_000])
def test_a_chunk_that_would_exceed_the_maximum_is_refused_before_it_is_read(
    size: str, serve: Serve, make_fetcher: MakeFetcher
) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(CHUNKED + size.encode() + b"\r\n")
        exchange.stall()

    server = serve(script)
    assert code_of(make_fetcher(server, timeout_s=60), server.url()) == "too_large"


def test_a_body_may_come_in_the_smallest_chunks(serve: Serve, make_fetcher: MakeFetcher) -> None:
    body = bytes(range(256)) * 400
    server = serve(raw(CHUNKED, b"".join(b"1\r\n%c\r\n" % byte for byte in body) + LAST))
    assert make_fetcher(server).fetch(server.url()) == body


@pytest.mark.parametrize("chunk_bytes", [512, 8_192, MAX_BYTES])
def test_a_body_of_the_largest_size_may_come_in_chunks(
    chunk_bytes: int, serve: Serve, make_fetcher: MakeFetcher
) -> None:
    body = b"x" * MAX_BYTES
    pieces = [body[start : start + chunk_bytes] for start in range(0, MAX_BYTES, chunk_bytes)]
    server = serve(raw(CHUNKED, b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + LAST))
    assert make_fetcher(server, max_bytes=MAX_BYTES).fetch(server.url()) == body


def test_a_connection_that_ends_within_the_head_is_a_failed_connection(serve: Serve, make_fetcher: MakeFetcher) -> None:
    """The missing fields could have announced any framing of the body."""
    server = serve(raw(OK + b"Content-Type: image/png\r\n"))
    assert code_of(make_fetcher(server), server.url()) == "connect_failed"


#: By name, what a server sends first, what it then sends without end, and how the download ends.
FLOODS: dict[str, tuple[bytes, bytes, str]] = {
    "a chunk of size -1": (CHUNKED + b"-1\r\n", b"x" * 65_536, "bad_response"),
    "a chunk of size -ffffffff": (CHUNKED + b"-ffffffff\r\n", b"x" * 65_536, "bad_response"),
    "a chunk of 16 EB": (CHUNKED + b"ffffffffffffffff\r\n", b"x" * 65_536, "too_large"),
    "a chunk of the largest size, and then more": (CHUNKED + b"%x\r\n" % MAX_BYTES, b"x" * 65_536, "bad_response"),
    "chunks": (CHUNKED, b"8000\r\n" + b"x" * 32_768 + b"\r\n", "too_large"),
    "the smallest chunks": (CHUNKED, b"1\r\nx\r\n" * 1_000, "bad_response"),
    "small chunks with extensions": (CHUNKED, b"1;x=" + b"y" * 4_000 + b"\r\nx\r\n", "bad_response"),
    "a chunk size": (CHUNKED, b"0" * 65_536, "bad_response"),
    "an extension": (CHUNKED + b"1;x=", b"y" * 65_536, "bad_response"),
    "a trailer": (CHUNKED + b"1\r\nx\r\n0\r\nX: ", b"y" * 65_536, "bad_response"),
    "trailers": (CHUNKED + b"1\r\nx\r\n0\r\n", b"X: y\r\n" * 1_000, "bad_response"),
    "long trailers": (CHUNKED + b"1\r\nx\r\n0\r\n", b"X: " + b"y" * 60_000 + b"\r\n", "too_large"),
    "a folded trailer": (CHUNKED + b"1\r\nx\r\n0\r\nX: y\r\n", b" y\r\n" * 1_000, "bad_response"),
    "a body without a length": (OK + b"\r\n", b"x" * 65_536, "too_large"),
    "a body without a length, HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\n", b"x" * 65_536, "too_large"),
    "a body that is longer than its length": (OK + b"Content-Length: 4\r\n\r\n", b"x" * 65_536, "4 bytes"),
    "a body of 5 GB": (OK + b"Content-Length: 5000000000\r\n\r\n", b"x" * 65_536, "too_large"),
    "a compressed body": (OK + b"Content-Encoding: gzip\r\n\r\n", b"\0" * 65_536, "bad_response"),
    "a status line": (b"HTTP/1.1 200 ", b"x" * 65_536, "bad_response"),
    "no HTTP": (b"", b"x" * 65_536, "bad_response"),
    "a header": (OK + b"X: ", b"y" * 65_536, "bad_response"),
    "headers": (OK, b"X: y\r\n" * 1_000, "bad_response"),
    "long headers": (OK, b"X: " + b"y" * 60_000 + b"\r\n", "bad_response"),
    "a folded header": (OK + b"X: y\r\n", b" y\r\n" * 1_000, "bad_response"),
    "100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000, "bad_response"),
    "100 Continue with headers": (b"", b"HTTP/1.1 100 Continue\r\nX: " + b"y" * 60_000 + b"\r\n\r\n", "bad_response"),
    "interim answers": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 1_000, "bad_response"),
    "bytes of HTTP/2": (b"", b"\0\0\x08\x06\0\0\0\0\0" + b"\0" * 8, "bad_response"),
    "the body of a failure": (b"HTTP/1.1 404 Not Found\r\n\r\n", b"x" * 65_536, "http_status"),
    "the body of a redirect": (b"HTTP/1.1 302 Found\r\nLocation: ftp://x\r\n\r\n", b"x" * 65_536, "scheme_not_allowed"),
}


def flooding(begins_with: bytes, goes_on: bytes) -> Callable[[Exchange], None]:
    def script(exchange: Exchange) -> None:
        exchange.send(begins_with)
        for _ in range(FLOOD_BYTES // len(goes_on)):
            exchange.send(goes_on)
        exchange.stall()

    return script


@pytest.fixture
def flood_urls(serve: Serve) -> dict[str, str]:
    """Yield a URL for each of `FLOODS`."""
    return {name: serve(flooding(begins, goes_on)).url() for name, (begins, goes_on, _) in FLOODS.items()}


def test_no_framing_makes_a_worker_read_more_than_its_maximum(flood_urls: dict[str, str]) -> None:
    command = [sys.executable, "-m", "tests.fetch.memory_probe", str(MAX_BYTES), *flood_urls.values()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: list[tuple[int, str]] = json.loads(done.stdout)
    assert {name: code for name, (_, code) in zip(FLOODS, found, strict=True)} == {
        name: code for name, (_, _, code) in FLOODS.items()
    }
    too_much = {name: grown_bytes for name, (grown_bytes, _) in zip(FLOODS, found, strict=True)}
    assert all(grown_bytes < MAX_BYTES + SLACK_BYTES for grown_bytes in too_much.values()), too_much
    assert sum(too_much.values()) < 2 * MAX_BYTES + SLACK_BYTES, too_much
