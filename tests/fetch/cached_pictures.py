"""Pictures that a test fetches with HTTP caching, and the scripts of the web servers from which they come."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.fetch.conftest import IMAGE, MakeFetcher, Serve
from tests.fetch.servers import Exchange, Script, ScriptedServer
from worker.embeddings.image_cache import Embedding
from worker.fetch.files import KnownFile
from worker.fetch.http_cache import CachingFetcher

CONDITIONS = ("if-none-match", "if-modified-since")
ETAG, DATED = 'ETag: "v1"', "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT"
FRESH = "Cache-Control: max-age=600"


class Pictures:
    """A web server, a `CachingFetcher`, and the cache of embeddings on which it relies.

    Attributes:
        embeddings: by digest of the file; each downloaded picture gets one, which a test may remove.
    """

    def __init__(self, server: ScriptedServer, make_fetcher: MakeFetcher, **options: Any) -> None:
        self.server = server
        self.embeddings: dict[str, Embedding] = {}
        max_bytes = options.pop("max_bytes", 100_000)
        self.fetcher = CachingFetcher(make_fetcher(server, **options), self.embeddings.get, max_bytes=max_bytes)

    def fetch(self, path: str = "/image.png") -> bytes | KnownFile[Embedding]:
        fetched = self.fetcher.fetch(self.server.url(path))
        if isinstance(fetched, KnownFile):
            return fetched
        self.embeddings[fetched.sha256] = Embedding(np.zeros(4, np.float32), 1, 1, "PNG")
        return fetched.take()

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many images needed no request, how many got a 304, and how many were downloaded."""
        return self.fetcher.hits, self.fetcher.revalidated, self.fetcher.misses

    @property
    def asked(self) -> list[str]:
        """The conditional header of each request; empty for a request without one."""
        lines = [request.lower().split("\r\n")[1:] for request in self.server.requests]
        return [", ".join(line for line in each if line.startswith(CONDITIONS)) for each in lines]


Start = Callable[..., Pictures]


@pytest.fixture
def start(serve: Serve, make_fetcher: MakeFetcher) -> Start:
    return lambda script, **options: Pictures(serve(script), make_fetcher, **options)


def says(*headers: str, body: bytes = IMAGE) -> Script:
    """Respond with the picture, or with 304 to a conditional request, and with these headers in either case."""

    def script(exchange: Exchange) -> None:
        if any(condition in exchange.headers for condition in CONDITIONS):
            unchanged(*headers)(exchange)
        else:
            exchange.answer(body, headers=headers)

    return script


def gives(body: bytes = b"", status: str = "200 OK", *headers: str) -> Script:
    return lambda exchange: exchange.answer(body, status, headers)


def unchanged(*headers: str, then: bytes = b"") -> Script:
    """Respond with 304 to any request."""
    return lambda exchange: exchange.send("\r\n".join(["HTTP/1.1 304 X", *headers, "", ""]).encode() + then)


def by_turns(*scripts: Script) -> Script:
    """Follow one script per request in turn, and the last one from then on."""
    left = list(scripts)
    return lambda exchange: (left.pop(0) if len(left) > 1 else left[0])(exchange)


def is_known(fetched: bytes | KnownFile[Embedding]) -> bool:
    """Return whether the fetcher returned its knowledge of `IMAGE` rather than the file's bytes."""
    if isinstance(fetched, bytes):
        assert fetched == IMAGE
        return False
    assert (fetched.sha256, fetched.size_bytes) == (hashlib.sha256(IMAGE).hexdigest(), len(IMAGE))
    assert fetched.embedding.format == "PNG"
    return True
