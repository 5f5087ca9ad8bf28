"""A real fetcher and a web server with any responses: each download ends in time with the image or an error code.

The interpreter's audit events record every address that any code dials.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from producer.errors import ERROR_CODES, JobFailed
from tests.fetch.servers import Exchange, ScriptedServer
from tests.fuzz.target import of_hypothesis
from tests.images.memory_probe import peak_bytes
from worker.embeddings.image_cache import Embedding
from worker.fetch import Fetcher, UrlPolicy
from worker.fetch.files import File, KnownFile
from worker.fetch.http_cache import CachingFetcher

TIMEOUT_S = 0.3
#: Slack after the deadline for a busy machine.
PATIENCE_S = 5.0
MAX_BODY_BYTES = 2_000
#: More than all buffers of a connection hold, so it can be sent only if the fetcher reads most of it.
FLOOD = b"x" * 65_536
FLOOD_BYTES = 32_000_000
#: How much memory a download of 2 KB may add, including the overhead of Python and of its allocator.
MAX_GROWTH_BYTES = 4_000_000
EMBEDDING = Embedding(np.zeros(1, np.float32), 1, 1, "PNG")
BODY = b"\x89PNG and so on"
SECRET = "CANARY"

dialled: list[Any] = []
drained: list[bytes] = []
surprises: list[str] = []


class Surprises(logging.Handler):
    """Records error logs of unexpected exceptions, which the fetcher contains but which here count as findings."""

    def emit(self, record: logging.LogRecord) -> None:
        surprises.append(record.getMessage())


logging.getLogger("worker.fetch").addHandler(Surprises(logging.ERROR))
logging.getLogger("worker.fetch").propagate = False
sys.addaudithook(lambda event, details: dialled.append(details[1]) if event == "socket.connect" else None)


@dataclass(frozen=True)
class Answer:
    """What the server does with one request. ``PORT`` in ``data`` stands for the server's port.

    Attributes:
        data: the bytes to send.
        pieces: the number of pieces in which the server sends them.
        then: what the server does afterwards.
        is_sound: whether the response is the image and nothing else.
    """

    data: bytes
    pieces: int
    then: str
    is_sound: bool = False

    def give(self, exchange: Exchange, port: int) -> None:
        data = self.data.replace(b"PORT", str(port).encode())
        size = max(1, len(data) // self.pieces)
        for start in range(0, len(data), size):
            exchange.send(data[start : start + size])
        if self.then == "close":
            exchange.hang_up()
        elif self.then == "reset":
            exchange.reset()
        elif self.then == "stall":
            exchange.stall()
        elif self.then == "flood":
            for _ in range(FLOOD_BYTES // len(FLOOD)):
                exchange.send(FLOOD)
            drained.append(self.data)


LATIN = st.text(st.characters(max_codepoint=255), max_size=12)
VERSION = st.sampled_from(["HTTP/1.1"] * 6 + ["HTTP/1.0", "HTTP/0.9", "HTTP/2", "http/1.1", "ICY", ""]) | LATIN
STATUS = st.sampled_from(["200", "200", "200", "302", "301", "307", "308", "100", "101", "103", "204", "206", "304"])
STATUS |= st.sampled_from(["404", "429", "503", "599", "999", "1000", "0", "-1", "２００", "+200", "2_0", "200.0", ""])
REASON = st.sampled_from(["", " ", " OK", " \x85"]) | LATIN
NUMBER = st.sampled_from(
    ["13", "0", "5", "14", "2000", "2001", "-1", "+13", "0x0d", "1_3", "１３", "13, 13", " 13", ""]
)
NUMBER |= st.integers(0, 10**20).map(str)
#: The fetcher may dial only the server's address and port. No host is public, because the test must not dial one.
HOST = st.sampled_from(
    [
        "127.0.0.1:PORT",
        "127.0.0.1:PORT",
        "own.example:PORT",
        "mixed.example:PORT",
        "private.example:PORT",
        "nowhere.example:PORT",
        "127.0.0.2:PORT",
        "[::1]:PORT",
        "10.0.0.1:PORT",
        "127.0.0.1:1",
        "own.example:1",
        "localhost:PORT",
        "0:PORT",
        "2130706433:PORT",
        "[",
        "u@127.0.0.1:PORT",
        "127.0.0.1:PORT@10.0.0.1",
        "169.254.169.254",
        "[::ffff:127.0.0.1]:PORT",
        "own.example.:PORT",
        "OWN.example:PORT",
        ":PORT",
        "127.0.0.1:PORTPORT",
    ]
)
PATH = st.sampled_from(["/", "/CANARY", "CANARY", "?CANARY", "#CANARY", "//", "/../CANARY", "\\", "/%00", "/ a", ""])
PATH |= LATIN
URL = st.builds("{}{}{}".format, st.sampled_from(["http://", "http://", "https://", "//", "http:", ""]), HOST, PATH)
ODD_LOCATION = PATH | st.sampled_from(["file:///etc/passwd", "data:,x", "http://", "ftp://127.0.0.1:PORT/", "\xff"])
LOCATION = st.one_of(URL, URL, URL, URL, ODD_LOCATION)
DATE = st.sampled_from(["Sun, 06 Nov 1994 08:49:37 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "0"]) | LATIN
DIRECTIVE = st.builds("max-age={}".format, NUMBER) | LATIN
DIRECTIVE |= st.sampled_from(["max-age=60", "s-maxage=60", "no-cache", "no-store", "private", 'x="', "must-revalidate"])
HEADER = st.one_of(
    st.builds("Content-Length:{}".format, NUMBER),
    st.builds("Transfer-Encoding: {}".format, st.sampled_from(["chunked", "Chunked", "gzip, chunked", "x", ""])),
    st.builds("Location: {}".format, LOCATION),
    st.builds("Connection: {}".format, st.sampled_from(["close", "keep-alive", "upgrade", ""])),
    st.builds("Content-Encoding: {}".format, st.sampled_from(["gzip", "identity", "br, gzip", "x", ""])),
    st.builds("Retry-After: {}".format, NUMBER | st.sampled_from(["Wed, 21 Oct 2015 07:28:00 GMT", "9" * 30])),
    st.builds("ETag: {}".format, st.sampled_from(['"v1"', 'W/"v1"', '"v2"', "v1", '"', "*"]) | LATIN),
    st.builds("Last-Modified: {}".format, DATE),
    st.builds("Date: {}".format, DATE),
    st.builds("Expires: {}".format, DATE),
    st.builds("Age: {}".format, NUMBER),
    st.builds("Vary: {}".format, st.sampled_from(["*", "Accept", "If-None-Match", ""]) | LATIN),
    st.builds("Cache-Control: {}".format, st.lists(DIRECTIVE, max_size=3).map(", ".join)),
    st.builds("Set-Cookie: {}".format, LATIN),
    st.builds("{}:{}".format, LATIN, LATIN),
    st.builds("X: {}".format, st.integers(1, 70_000).map("x".__mul__)),
    st.integers(1, 120).map(lambda count: "\r\n".join(["X: x"] * count)),
    st.sampled_from([" folded", ":", "\0", "X", "X :x", "\r", "\n", "Content-Length : 13", "Content-Length:\x0b13"]),
    LATIN,
)
END = st.sampled_from(["\r\n"] * 6 + ["\n", "\r", ""])
SIZES = ["d", "D", "0", "5", "e", "ffffffff", "-1", "0x5", "5;x=y", "5;", "1_0", " 5", "", "g"]
SIZES += ["+d", "-0", "-ffffffff", "7fffffffffffffff", "0" * 5_000, "d;" + "x" * 5_000, 'd;a="\r']
CHUNK_SIZE = st.sampled_from(SIZES)
CHUNKS = st.lists(
    st.builds("{}{}{}{}".format, CHUNK_SIZE, END, st.just(BODY.decode("latin-1")) | LATIN, END), max_size=4
).map("".join)
BODIES = st.one_of(
    st.just(BODY.decode("latin-1")),
    CHUNKS,
    st.builds("{}0\r\n{}\r\n".format, CHUNKS, st.just("") | HEADER),
    st.integers(0, 4_000).map("x".__mul__),
    LATIN,
)


def text_of(version: str, status: str, reason: str, headers: Sequence[str], end: str, body: str) -> bytes:
    lines = [f"{version} {status}{reason}", *headers, ""]
    return (end.join(lines) + end + body).encode("utf-8")


def chunked(pieces: Sequence[bytes]) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


SOUND = st.one_of(
    st.just(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY),
    st.sets(st.integers(1, len(BODY) - 1)).map(
        lambda cuts: (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            + chunked([BODY[a:b] for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), len(BODY)], strict=True)])
        )
    ),
)
#: Responses that may be cached and confirmed by a conditional request.
KEPT = st.builds(
    lambda status, lines: "\r\n".join([f"HTTP/1.1 {status} X", *lines, "", ""]).encode("utf-8"),
    st.sampled_from(["304", "304", "200"]),
    st.lists(HEADER, max_size=3).map(lambda lines: ['ETag: "v1"', *lines]),
)
KEPT |= st.sampled_from(['ETag: "v1"', "Cache-Control: max-age=60"]).map(
    lambda line: f"HTTP/1.1 200 OK\r\n{line}\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY
)
#: Redirects; a chain of three of them leads to an image.
REDIRECT = LOCATION.map(
    lambda location: f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode("latin-1")
)
ODD = st.builds(text_of, VERSION, STATUS, REASON, st.lists(HEADER, max_size=6), END, BODIES)
#: A good head with any body, or with a single chunk that seems endless.
CHUNKED_HEAD = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKED = BODIES.map(CHUNKED_HEAD.__add__).map(str.encode)
ENDLESS = st.builds("{}{}\r\n".format, st.just(CHUNKED_HEAD), CHUNK_SIZE).map(str.encode)
PIECES = st.sampled_from([1, 1, 1, 2, 7, 40])
THEN = st.sampled_from(["stay"] * 12 + ["close"] * 12 + ["reset"] * 3 + ["stall"])
ANSWER = st.one_of(
    st.builds(Answer, SOUND, PIECES, st.sampled_from(["stay", "close", "stall"]), st.just(True)),
    st.builds(Answer, KEPT | REDIRECT | ODD, PIECES, THEN),
    st.builds(Answer, CHUNKED, PIECES, THEN),
    st.builds(Answer, ENDLESS | ODD, PIECES, st.just("flood")),
    st.builds(Answer, REDIRECT | ODD | st.binary(), PIECES, THEN),
)
ANSWERS = st.lists(ANSWER, min_size=1, max_size=4)
ANSWERS |= st.lists(st.builds(Answer, KEPT, st.just(1), st.just("stay")), min_size=2, max_size=4)


def resolve(host: str, _port: int) -> list[str]:
    addresses = {
        "own.example": ["127.0.0.1"],
        "mixed.example": ["127.0.0.2", "127.0.0.1", "10.0.0.1"],
        "private.example": ["10.0.0.1"],
    }.get(host.lower().removesuffix("."))
    if addresses is None:
        raise OSError(f"no {SECRET}")
    return addresses


@given(answers=ANSWERS)
def fetch(answers: list[Answer]) -> None:
    """Make as many downloads as there are responses, with one fetcher; redirects and retries consume responses too."""
    dialled.clear()
    drained.clear()
    surprises.clear()
    before, descriptors = set(threading.enumerate()), count_descriptors()
    left = list(answers)
    with ScriptedServer(lambda exchange: (left.pop(0) if left else answers[-1]).give(exchange, server.port)) as server:
        policy = UrlPolicy.parsed(str(server.port), f"127.0.0.1/32:{server.port}", "")
        with closing(Fetcher(policy, max_bytes=MAX_BODY_BYTES, timeout_s=TIMEOUT_S, resolve=resolve)) as fetcher:
            files: dict[str, Embedding] = {}
            caching = CachingFetcher(fetcher, files.get, max_bytes=2_000)
            for number in range(len(answers)):
                outcome = download(caching, server.url(f"/{SECRET}"))
                if isinstance(outcome, File):
                    files[outcome.sha256] = EMBEDDING
                # On a busy machine the download may time out.
                came = outcome.take() if isinstance(outcome, File) else outcome
                assert number > 0 or not answers[0].is_sound or came in (BODY, "fetch_timeout")
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), f"a thread is left: {thread.name}"
    assert set(dialled) <= {("127.0.0.1", server.port)}, dialled
    assert not surprises, surprises
    assert not drained, drained
    assert count_descriptors() == descriptors, "a descriptor is left"


def download(fetcher: CachingFetcher[Embedding], url: str) -> File | KnownFile[Embedding] | str:
    """Download a URL; return the file, its cached embedding, or the error code."""
    started_s, before_bytes = time.monotonic(), memory_bytes()
    outcome: File | KnownFile[Embedding] | str
    try:
        outcome = fetcher.fetch(url)
    except JobFailed as failure:
        outcome = failure.code
        assert type(failure) is JobFailed
        assert failure.code in ERROR_CODES
        assert failure.__cause__ is None
        assert failure.__context__ is None
        assert not re.search(f"{SECRET}|127\\.0|example|http://", str(failure))
    else:
        assert 0 < outcome.size_bytes <= MAX_BODY_BYTES
        assert fetcher.kept_bytes <= 2_000
    duration_s = time.monotonic() - started_s
    assert duration_s < TIMEOUT_S + PATIENCE_S, f"{duration_s:.1f} s"
    grown_bytes = memory_bytes() - before_bytes
    assert grown_bytes < MAX_GROWTH_BYTES, f"{grown_bytes:,} bytes"
    return outcome


def memory_bytes() -> int:
    return peak_bytes() if sys.platform == "linux" else 0


def count_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0


TARGET = of_hypothesis(fetch, max_bytes=8_192)
