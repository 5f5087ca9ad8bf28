"""Servers gain nothing by lies about caching; the cache's memory is bounded, and it contains no URLs."""

from __future__ import annotations

import sys
import tracemalloc

import pytest

from tests.fetch.cached_pictures import ETAG, FRESH, Start, by_turns, is_known, says, start, unchanged
from tests.fetch.conftest import IMAGE, failure_of

__all__ = ["start"]


def test_a_304_to_an_unconditional_request_is_a_failure(start: Start) -> None:
    pictures = start(unchanged(ETAG, FRESH))

    assert failure_of(pictures.fetch).code == "http_status"
    assert pictures.fetcher.kept_bytes == 0


@pytest.mark.parametrize("other", [['ETag: "v2"'], ["ETag: v1"], ['ETag: "v1"', 'ETag: "v2"']])
def test_after_a_304_with_another_etag_the_picture_is_downloaded(other: list[str], start: Start) -> None:
    pictures = start(by_turns(says(ETAG), unchanged(*other), says(ETAG)))

    assert [is_known(pictures.fetch()) for _ in range(3)] == [False, False, True]
    assert pictures.asked == ["", 'if-none-match: "v1"', "", 'if-none-match: "v1"']


def test_a_server_that_responds_304_even_without_a_condition_is_asked_only_once_more(start: Start) -> None:
    pictures = start(by_turns(says(ETAG), unchanged('ETag: "v2"')))
    pictures.fetch()

    assert failure_of(pictures.fetch).code == "http_status"
    assert len(pictures.server.requests) == 3


@pytest.mark.parametrize(
    "framing", ["Content-Length: 5", "Transfer-Encoding: chunked", "Content-Length: 0", "Content-Length: x", "X: x"]
)
def test_a_body_after_a_304_never_becomes_the_next_response(framing: str, start: Start) -> None:
    body = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"
    pictures = start(by_turns(says(ETAG), unchanged(ETAG, framing, then=body), says()))
    pictures.fetch()

    assert is_known(pictures.fetch())
    assert pictures.fetch("/other") == IMAGE
    assert pictures.server.connections == 2


@pytest.mark.parametrize("framing", ["Content-Length: 5", "Transfer-Encoding: chunked"])
def test_a_304_that_announces_a_body_ends_its_connection(framing: str, start: Start) -> None:
    pictures = start(by_turns(says(ETAG), unchanged(ETAG, framing), says()))
    pictures.fetch()

    assert is_known(pictures.fetch())
    assert pictures.fetch("/other") == IMAGE
    assert pictures.server.connections == 2


def test_the_cache_of_many_urls_stays_within_its_bytes(start: Start) -> None:
    pictures = start(says(FRESH, ETAG), max_bytes=20_000)

    for number in range(100):
        pictures.fetch(f"/{number}")

    assert 15_000 < pictures.fetcher.kept_bytes <= 20_000
    assert is_known(pictures.fetch("/99"))
    assert not is_known(pictures.fetch("/0"))


def test_the_cache_occupies_no_more_memory_than_it_counts(start: Start) -> None:
    pictures = start(lambda exchange: says(FRESH, f'ETag: "{exchange.path}{"x" * 200}"')(exchange), max_bytes=10**6)
    pictures.fetch("/warm-up")
    pictures.server.requests.clear()
    tracemalloc.start()
    try:
        before = tracemalloc.take_snapshot()
        for number in range(400):
            pictures.fetch(f"/{number}")
        after = tracemalloc.take_snapshot()
    finally:
        tracemalloc.stop()

    ours = [
        tracemalloc.Filter(True, f"*/worker/{name}.py")
        for name in ("fetch/http_cache", "concurrency/lru", "fetch/freshness")
    ]
    lines = after.filter_traces(ours).compare_to(before.filter_traces(ours), "filename")
    # The parser of headers, not our modules, allocated the ETags.
    etags_bytes = sum(sys.getsizeof(entry.terms.etag) for entry in pictures.fetcher._entries.values())
    grown_bytes = sum(line.size_diff for line in lines) + etags_bytes
    assert 0.6 * pictures.fetcher.kept_bytes < grown_bytes <= pictures.fetcher.kept_bytes


def test_the_cache_contains_no_url(start: Start) -> None:
    pictures = start(says(FRESH, ETAG))
    pictures.fetch("/image.png?X-Amz-Signature=CANARY")

    kept = list(pictures.fetcher._entries.items())

    assert len(kept) == 1
    assert all(isinstance(key, bytes) and sys.getsizeof(key) < 100 for key, _ in kept)
    assert "CANARY" not in repr(kept) + repr(vars(pictures.fetcher))
    assert '"v1"' not in repr(kept)
