"""Pictures that are fetched with HTTP caching, and the web servers they come from."""

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
    """A web server, a fetcher that caches, and the embeddings that are kept.

    Attributes:
        embeddings: by digest; a picture that was downloaded has one until a test takes it away.
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
        """Images: no server asked, unchanged, downloaded."""
        return self.fetcher.hits, self.fetcher.revalidated, self.fetcher.misses

    @property
    def asked(self) -> list[str]:
        """What each request asked with: a condition, or nothing."""
        lines = [request.lower().split("\r\n")[1:] for request in self.server.requests]
        return [", ".join(line for line in each if line.startswith(CONDITIONS)) for each in lines]


Start = Callable[..., Pictures]


@pytest.fixture
def start(serve: Serve, make_fetcher: MakeFetcher) -> Start:
    return lambda script, **options: Pictures(serve(script), make_fetcher, **options)


def says(*headers: str, body: bytes = IMAGE) -> Script:
    """Answers with the picture, or with 304 where it is asked with a condition, and these headers in either case."""

    def script(exchange: Exchange) -> None:
        if any(condition in exchange.headers for condition in CONDITIONS):
            unchanged(*headers)(exchange)
        else:
            exchange.answer(body, headers=headers)

    return script


def gives(body: bytes = b"", status: str = "200 OK", *headers: str) -> Script:
    return lambda exchange: exchange.answer(body, status, headers)


def unchanged(*headers: str, then: bytes = b"") -> Script:
    """A 304, whatever was asked."""
    return lambda exchange: exchange.send("\r\n".join(["HTTP/1.1 304 X", *headers, "", ""]).encode() + then)


def by_turns(*scripts: Script) -> Script:
    """Follows one script after the other, then the last."""
    left = list(scripts)
    return lambda exchange: (left.pop(0) if len(left) > 1 else left[0])(exchange)


def is_known(fetched: bytes | KnownFile[Embedding]) -> bool:
    """Whether it is what is known of the picture, and not its bytes."""
    if isinstance(fetched, bytes):
        assert fetched == IMAGE
        return False
    assert (fetched.sha256, fetched.size_bytes) == (hashlib.sha256(IMAGE).hexdigest(), len(IMAGE))
    assert fetched.embedding.format == "PNG"
    return True
