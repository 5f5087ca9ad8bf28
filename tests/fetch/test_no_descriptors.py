"""A worker that can open no more files says so, and blames neither an image's host nor the proxy."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.fetch.conftest import IMAGE, MakeFetcher, Serve, failure_of
from tests.fetch.forwarding_proxy import ForwardingProxy
from tests.fetch.servers import Exchange
from worker.fetch.proxy import Proxy
from worker.fetch.resolver import system_resolve

#: More failures of a host in a row than the worker tolerates.
MANY = 20


@pytest.fixture(autouse=True)
def one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.fetch.retries.MAX_ATTEMPTS", 1)


@contextmanager
def few_descriptors(left: int) -> Iterator[None]:
    """Let this process open only so many more files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(left + 1)]
    for descriptor in opened:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened[-1], hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def answer(exchange: Exchange) -> None:
    exchange.answer(IMAGE)


def test_a_download_without_a_descriptor_does_not_count_against_its_host(
    serve: Serve, make_fetcher: MakeFetcher
) -> None:
    server = serve(answer)
    fetcher = make_fetcher(server)
    for _ in range(MANY):
        with few_descriptors(0):
            failure = failure_of(lambda: fetcher.fetch(server.url()))
        assert (failure.code, failure.retryable) == ("out_of_memory", True)

    assert fetcher.fetch(server.url()) == IMAGE


def test_a_download_whose_connection_is_the_last_descriptor_does_not_blame_the_host(make_fetcher: MakeFetcher) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        fetcher = make_fetcher(allow=f"127.0.0.1/32:{port}")
        with few_descriptors(1):
            failure = failure_of(lambda: fetcher.fetch(f"http://127.0.0.1:{port}/image.png"))

    assert (failure.code, failure.retryable) == ("out_of_memory", True)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_download_without_a_descriptor_does_not_blame_the_proxy(
    host: str, serve: Serve, make_fetcher: MakeFetcher
) -> None:
    server = serve(answer)
    with ForwardingProxy() as proxy:
        fetcher = make_fetcher(server, proxy=Proxy.parsed(proxy.url.replace("127.0.0.1", host)))
        with few_descriptors(0):
            failure = failure_of(lambda: fetcher.fetch(server.url()))

    assert (failure.code, failure.retryable) == ("out_of_memory", True)


def test_a_name_that_is_not_found_for_want_of_a_descriptor_may_be_tried_again(
    serve: Serve, make_fetcher: MakeFetcher
) -> None:
    server = serve(answer)
    fetcher = make_fetcher(server, resolve=system_resolve)
    with few_descriptors(0):
        failure = failure_of(lambda: fetcher.fetch(server.url(host="localhost")))

    assert (failure.code, failure.retryable) == ("out_of_memory", True)
