"""If a picture's embedding is cached, the worker requests the picture only when HTTP demands it."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fetch.cached_pictures import DATED, ETAG, FRESH, Pictures, Start, by_turns, gives, is_known, says, start
from tests.fetch.conftest import IMAGE, MakeFetcher, Serve, failure_of
from tests.fetch.servers import Exchange
from worker.fetch import CoalescingFetcher
from worker.fetch.files import KnownFile

__all__ = ["start"]


@pytest.mark.parametrize("header", [FRESH, "Cache-Control: s-maxage=600, max-age=0"])
def test_a_fresh_picture_is_requested_once(header: str, start: Start) -> None:
    pictures = start(says(header))

    assert [is_known(pictures.fetch()) for _ in range(3)] == [False, True, True]

    assert pictures.asked == [""]
    assert pictures.counts == (2, 0, 1)


@pytest.mark.parametrize(
    ("headers", "condition"),
    [
        ([ETAG], 'if-none-match: "v1"'),
        ([ETAG, DATED, "Cache-Control: no-cache"], 'if-none-match: "v1"'),
        (['ETag: W/"v1"', FRESH, "Age: 600"], 'if-none-match: w/"v1"'),
        ([DATED], "if-modified-since: sun, 06 nov 1994 08:49:37 gmt"),
    ],
)
def test_a_stale_picture_is_downloaded_once_and_then_confirmed_by_conditional_requests(
    headers: list[str], condition: str, start: Start
) -> None:
    pictures = start(says(*headers))

    assert [is_known(pictures.fetch()) for _ in range(3)] == [False, True, True]

    assert pictures.asked == ["", condition, condition]
    assert pictures.counts == (0, 2, 1)


def test_a_conditional_request_differs_only_by_its_condition_and_uses_the_kept_connection(
    start: Start,
) -> None:
    pictures = start(says(ETAG))

    for _ in range(3):
        pictures.fetch()

    first, second, _ = pictures.server.requests
    assert second.replace('If-None-Match: "v1"\r\n', "") == first
    assert pictures.server.connections == 1


@pytest.mark.parametrize(
    "headers",
    [
        [],
        ["Cache-Control: max-age=0"],
        [ETAG, FRESH, "Cache-Control: no-store"],
        [ETAG, "Cache-Control: private, max-age=600"],
        [ETAG, FRESH, "Vary: *"],
        ["ETag: " + '"' + "x" * 5_000 + '"'],
    ],
)
def test_a_picture_that_must_not_be_cached_or_cannot_be_confirmed_is_downloaded_each_time(
    headers: list[str], start: Start
) -> None:
    pictures = start(says(*headers))

    assert [is_known(pictures.fetch()) for _ in range(2)] == [False, False]

    assert pictures.asked == ["", ""]
    assert pictures.fetcher.kept_bytes == 0


def test_a_picture_that_has_changed_is_downloaded_and_cached_from_then_on(start: Start) -> None:
    newer = says('ETag: "v2"', body=b"newer")
    pictures = start(by_turns(says(ETAG), gives(b"newer", "200 OK", 'ETag: "v2"'), newer))

    assert pictures.fetch() == IMAGE
    assert pictures.fetch() == b"newer"
    known = pictures.fetch()

    assert isinstance(known, KnownFile)
    assert known.sha256 == hashlib.sha256(b"newer").hexdigest()
    assert pictures.asked == ["", 'if-none-match: "v1"', 'if-none-match: "v2"']


def test_without_its_embedding_a_picture_is_downloaded(start: Start) -> None:
    pictures = start(says(ETAG, FRESH))
    pictures.fetch()
    pictures.embeddings.clear()

    assert not is_known(pictures.fetch())

    assert pictures.asked == ["", ""]


def test_an_embedding_that_is_evicted_during_the_conditional_request_is_still_used(start: Start) -> None:
    def script(exchange: Exchange) -> None:
        if "if-none-match" in exchange.headers:
            pictures.embeddings.clear()
        says(ETAG)(exchange)

    pictures = start(script)
    pictures.fetch()

    assert is_known(pictures.fetch())


def test_a_304_sets_the_picture_s_lifetime_anew(start: Start) -> None:
    pictures = start(by_turns(says(ETAG), says(ETAG, FRESH)))

    assert [is_known(pictures.fetch()) for _ in range(3)] == [False, True, True]

    assert pictures.counts == (1, 1, 1)


def test_a_304_can_forbid_to_cache_the_picture_any_longer(start: Start) -> None:
    pictures = start(by_turns(says(ETAG), says(ETAG, "Cache-Control: no-store"), says(ETAG)))

    assert [is_known(pictures.fetch()) for _ in range(3)] == [False, True, False]


def test_urls_that_differ_by_more_than_a_fragment_share_no_cache_entry(start: Start) -> None:
    pictures = start(says(FRESH))

    paths = ("/a", "/a#top", "/a?", "/a?signature=1", "/A")
    assert [is_known(pictures.fetch(path)) for path in paths] == [False, True, False, False, False]


def test_a_picture_behind_a_redirect_is_not_cached(start: Start) -> None:
    def script(exchange: Exchange) -> None:
        if exchange.path == "/old":
            exchange.answer(status="301 Moved", headers=["Location: /new", ETAG, FRESH])
        else:
            says(ETAG, FRESH)(exchange)

    pictures = start(script)

    assert [is_known(pictures.fetch("/old")) for _ in range(2)] == [False, False]
    assert pictures.fetcher.kept_bytes == 0


def test_an_etag_is_not_sent_to_the_target_of_a_redirect(start: Start) -> None:
    def moved(exchange: Exchange) -> None:
        exchange.redirect("/new") if exchange.path == "/old" else exchange.answer(IMAGE)

    pictures = start(by_turns(says(ETAG), moved))

    assert [is_known(pictures.fetch("/old")) for _ in range(3)] == [False, False, False]
    assert pictures.asked == ["", 'if-none-match: "v1"', "", "", ""]


@pytest.mark.parametrize("status", ["404 Not Found", "403 Forbidden", "500 Oops", "206 Partial Content"])
def test_a_stale_picture_is_not_used_in_place_of_a_failure(status: str, start: Start) -> None:
    pictures = start(
        by_turns(says(ETAG, "Cache-Control: max-age=0, stale-if-error=600"), gives(IMAGE, status, "Retry-After: 60"))
    )
    pictures.fetch()

    assert failure_of(pictures.fetch).code == "http_status"


def test_the_url_policy_also_applies_to_cached_urls(serve: Serve, make_fetcher: MakeFetcher) -> None:
    pictures = Pictures(serve(says(FRESH)), make_fetcher, hosts="127.0.0.*")
    pictures.fetch()

    assert failure_of(lambda: pictures.fetcher.fetch(f"{pictures.server.url()}\n")).code == "invalid_url"
    assert failure_of(lambda: pictures.fetcher.fetch(pictures.server.url(host="h.example"))).code == "host_not_allowed"


def test_the_host_of_a_stale_picture_is_looked_up_and_checked_again(serve: Serve, make_fetcher: MakeFetcher) -> None:
    answers = ["127.0.0.1"]
    server = serve(says(ETAG))
    options = {"ports": str(server.port), "resolve": lambda *_: list(answers), "max_connections": 0}
    pictures = Pictures(server, make_fetcher, **options)
    url = pictures.server.url(host="h.example")
    pictures.fetcher.fetch(url)
    answers[:] = ["10.0.0.1"]

    assert failure_of(lambda: pictures.fetcher.fetch(url)).code == "address_blocked"


def test_a_stale_picture_is_not_used_if_its_server_does_not_respond(start: Start) -> None:
    pictures = start(by_turns(says(ETAG), Exchange.stall), timeout_s=0.5)
    pictures.fetch()

    assert failure_of(pictures.fetch).code == "fetch_timeout"


def test_simultaneous_jobs_for_a_fresh_picture_make_no_further_request(start: Start) -> None:
    pictures = start(says(FRESH))
    pictures.fetch()
    shared = CoalescingFetcher(pictures.fetcher, 5.0)

    with ThreadPoolExecutor() as threads:
        fetched = list(threads.map(lambda _: shared.fetch(pictures.server.url()), range(8)))

    assert all(isinstance(each, KnownFile) and is_known(each) for each in fetched)
    assert len(pictures.server.requests) == 1
