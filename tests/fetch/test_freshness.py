"""What a server's headers permit: RFC 9111 for a shared cache; a response with unreadable headers is not cached."""

import math
import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3 import HTTPHeaderDict

from worker.fetch.freshness import MAX_ETAG_CHARACTERS, MAX_FRESH_S, Arrival, CacheTerms, confirms, renewed, terms_of

#: Whole seconds, because HTTP's dates have no fractions.
NOW_S = 1_800_000_000
ARRIVAL = Arrival(unix_s=NOW_S, monotonic_s=5_000.0, delay_s=2.0)
#: With this header a response can be cached, whatever its other headers.
ETAG = ("ETag", '"v1"')


def date(after_s: int = 0) -> str:
    return formatdate(NOW_S + after_s, usegmt=True)


def headers(*lines: tuple[str, str]) -> HTTPHeaderDict:
    return HTTPHeaderDict(list(lines))


def fresh_s(*lines: tuple[str, str]) -> float | None:
    """Return for how long a response with an ETag and these headers is fresh; None if it must not be cached."""
    terms = terms_of(headers(ETAG, *lines), ARRIVAL)
    return None if terms is None else terms.fresh_until_s - ARRIVAL.monotonic_s


def cached(value: str) -> tuple[str, str]:
    return "Cache-Control", value


@pytest.mark.parametrize(
    ("control", "expected_s"),
    [
        ("max-age=60", 58),
        ("public, max-age=60, immutable", 58),
        ("Max-Age=60", 58),
        ('max-age="60"', 58),
        (",,max-age=60,", 58),
        ("max-age=60, s-maxage=20", 18),
        ("max-age=20, s-maxage=60", 58),
        ("max-age=60, must-revalidate, proxy-revalidate", 58),
        ('max-age=60, extension="a, b"', 58),
        ("max-age=2", 0),
        ("max-age=0", 0),
        ("public", 0),
        ("", 0),
        ("max-age=60, no-cache", 0),
        ('max-age=60, no-cache="Set-Cookie"', 0),
        ("max-age=0, stale-while-revalidate=60, stale-if-error=60", 0),
    ],
)
def test_a_response_is_fresh_for_its_server_s_maximum_age_less_the_time_that_it_took(
    control: str, expected_s: float
) -> None:
    assert fresh_s(cached(control)) == expected_s


@pytest.mark.parametrize(
    "control",
    [
        "no-store",
        "private",
        "PRIVATE",
        'private="Set-Cookie"',
        "max-age=60, no-store",
        "must-understand, no-store, max-age=60",
        "max-age=60;no-store",
        "max-age = 60",
        'max-age=60, x="no-store',
        'x="\\", max-age=60',
        "max-age=60, =",
        "max-age=60\x00",
        "max-age=60, " + "x" * 3_000,
    ],
)
def test_a_response_that_is_not_for_shared_caches_or_has_an_unreadable_header_is_not_cached(control: str) -> None:
    assert fresh_s(cached(control)) is None


def test_repeated_cache_control_headers_count_as_one() -> None:
    assert fresh_s(cached("max-age=60"), cached("no-store")) is None
    assert fresh_s(cached("max-age=60"), cached("must-revalidate")) == 58


@pytest.mark.parametrize(
    "control",
    [
        "max-age",
        "max-age=",
        "max-age=-60",
        "max-age=6e1",
        "max-age=60.5",
        "max-age=６０",
        "max-age=60, max-age=90",
        "s-maxage=x, max-age=60",
    ],
)
def test_a_response_with_a_nonsensical_lifetime_is_not_fresh(control: str) -> None:
    assert not fresh_s(cached(control))


@pytest.mark.parametrize("age", ["99999999999", "9" * 1_000, str(2**64)])
def test_no_response_is_fresh_for_longer_than_an_hour(age: str) -> None:
    assert fresh_s(cached(f"max-age={age}")) == MAX_FRESH_S
    assert fresh_s(cached("max-age=60"), ("Age", age)) == 0


@pytest.mark.parametrize(
    ("lines", "expected_s"),
    [
        ([("Expires", date(60))], 58),
        ([("Expires", date(60)), ("Date", date(20))], 38),
        ([("Expires", date(60)), ("Date", date(-30))], 60),
        ([("Expires", date(60)), cached("max-age=20")], 18),
        ([("Expires", date(60)), cached("no-cache")], 0),
        ([("Expires", date(-60))], 0),
        ([("Expires", "0")], 0),
        ([("Expires", "-1")], 0),
        ([("Expires", date(60)), ("Expires", date(60))], 0),
        ([("Expires", "Fri, 31 Dec 9999 23:59:59 GMT")], MAX_FRESH_S),
        ([("Expires", "Fri, 31 Dec 99999 23:59:59 GMT")], 0),
        ([("Last-Modified", date(-86_400 * 365))], 0),
    ],
)
def test_without_a_maximum_age_only_expires_gives_a_lifetime(lines: list[tuple[str, str]], expected_s: float) -> None:
    assert fresh_s(*lines) == expected_s


@pytest.mark.parametrize(
    ("lines", "expected_s"),
    [
        ([("Age", "30")], 28),
        ([("Age", "30, 5")], 28),
        ([("Age", "60")], 0),
        ([("Age", "-5")], 58),
        ([("Age", "soon")], 58),
        ([("Date", date(-40))], 20),
        ([("Date", date(-40)), ("Age", "50")], 8),
        ([("Date", date(3_000))], 58),
        ([("Date", "yesterday")], 58),
        ([("Date", date(-61))], 0),
    ],
)
def test_a_response_is_as_old_as_its_age_or_its_date_says(lines: list[tuple[str, str]], expected_s: float) -> None:
    assert fresh_s(cached("max-age=60"), *lines) == expected_s


@pytest.mark.parametrize("names", ["Origin", "Accept, accept-encoding", "User-Agent, Cookie", ""])
def test_a_response_that_varies_only_by_headers_equal_in_all_our_requests_is_cached(names: str) -> None:
    assert fresh_s(cached("max-age=60"), ("Vary", names)) == 58


@pytest.mark.parametrize("names", ["*", "Accept, *", "If-None-Match", "a b", "Accept; *", "\xff"])
def test_a_response_that_varies_otherwise_is_not_cached(names: str) -> None:
    assert fresh_s(cached("max-age=60"), ("Vary", names)) is None


@pytest.mark.parametrize("etag", ['"v1"', 'W/"v1"', '""', '"' + "x" * (MAX_ETAG_CHARACTERS - 2) + '"'])
def test_a_conditional_request_sends_the_etag_unchanged(etag: str) -> None:
    terms = terms_of(headers(("ETag", etag), ("Last-Modified", date(-60))), ARRIVAL)

    assert terms is not None
    assert terms.conditions() == {"If-None-Match": etag}


@pytest.mark.parametrize(
    "etags",
    [
        ["v1"],
        ['"v1'],
        ['"v1", "v2"'],
        ['w/"v1"'],
        ["*"],
        ['"\xe9"'],
        ['"v1"\r\n X: y'],
        ['"' + "x" * MAX_ETAG_CHARACTERS + '"'],
        ['"v1"', '"v2"'],
        [],
    ],
)
def test_without_a_valid_etag_a_conditional_request_sends_the_date(etags: list[str]) -> None:
    lines = [("ETag", etag) for etag in etags]

    terms = terms_of(headers(*lines, ("Last-Modified", "Sunday, 06-Nov-94 08:49:37 GMT")), ARRIVAL)

    assert terms is not None
    assert terms.conditions() == {"If-Modified-Since": "Sun, 06 Nov 1994 08:49:37 GMT"}


@pytest.mark.parametrize(
    "modified", ["", "0", "yesterday", date(0), date(60), "Thu, 01 Jan 1960 00:00:00 GMT", "Mon, 1" + " " * 60_000]
)
def test_a_useless_date_is_not_sent_in_a_conditional_request(modified: str) -> None:
    """That includes a date in the current second, in which the picture may still change again."""
    assert terms_of(headers(("Last-Modified", modified)), ARRIVAL) is None
    terms = terms_of(headers(("Last-Modified", modified), cached("max-age=60")), ARRIVAL)
    assert terms is not None
    assert terms.conditions() == {}


KNOWN = CacheTerms('"v1"', NOW_S - 60, ARRIVAL.monotonic_s)
DATED = CacheTerms(None, NOW_S - 60, ARRIVAL.monotonic_s)


@pytest.mark.parametrize(
    ("known", "lines", "expected"),
    [
        (KNOWN, [], True),
        (KNOWN, [("ETag", '"v1"')], True),
        (KNOWN, [("ETag", 'W/"v1"')], True),
        (KNOWN, [("ETag", '"v2"')], False),
        (KNOWN, [("ETag", '"v1"'), ("ETag", '"v2"')], False),
        (KNOWN, [("ETag", "v1")], False),
        (DATED, [], True),
        (DATED, [("Last-Modified", date(-60))], True),
        (DATED, [("Last-Modified", date(-59))], False),
        (DATED, [("Last-Modified", "?")], False),
        (DATED, [("ETag", '"v1"')], False),
    ],
)
def test_a_304_with_another_etag_or_date_does_not_confirm_the_cached_response(
    known: CacheTerms, lines: list[tuple[str, str]], expected: bool
) -> None:
    assert confirms(known, headers(*lines)) is expected


def test_a_304_renews_the_lifetime_and_keeps_the_etag_and_the_date() -> None:
    later = Arrival(NOW_S + 100, ARRIVAL.monotonic_s + 100, 0)

    assert renewed(KNOWN, headers(cached("max-age=60")), later) == CacheTerms(
        '"v1"', NOW_S - 60, ARRIVAL.monotonic_s + 160
    )
    assert renewed(KNOWN, headers(), later) == CacheTerms('"v1"', NOW_S - 60, ARRIVAL.monotonic_s + 100)
    assert renewed(KNOWN, headers(("Expires", date(1_000))), later) == renewed(KNOWN, headers(), later)
    assert renewed(KNOWN, headers(cached("no-store")), later) is None
    assert renewed(KNOWN, headers(("Vary", "*")), later) is None


TEXT = st.text(st.characters(max_codepoint=255), max_size=40)
NUMBER = st.one_of(st.integers(-5, 10**30).map(str), st.sampled_from(["", "60", "007", "1e9", "0x1", "٣", "60 "]), TEXT)
DIRECTIVE = st.one_of(
    st.builds("{}={}".format, st.sampled_from(["max-age", "s-maxage", "MAX-AGE"]), NUMBER),
    st.sampled_from(["public", "no-cache", "must-revalidate", 'no-cache="a, b"', "x", 'x="', '"', "\\", "="]),
    TEXT,
)
DATE = st.one_of(st.integers(0, 2**37).map(lambda at_s: formatdate(at_s, usegmt=True)), NUMBER, TEXT)
LINE = st.one_of(
    st.tuples(st.just("Cache-Control"), st.lists(DIRECTIVE, max_size=4).map(", ".join)),
    st.tuples(st.sampled_from(["Date", "Expires", "Last-Modified"]), DATE),
    st.tuples(st.just("Age"), NUMBER),
    st.tuples(st.just("ETag"), st.one_of(st.builds('{}"{}"'.format, st.sampled_from(["", "W/"]), TEXT), TEXT)),
    st.tuples(st.just("Vary"), st.one_of(st.sampled_from(["*", "Accept", "a,,b"]), TEXT)),
)
ANY = st.lists(LINE, max_size=8).map(lambda lines: headers(*lines))


@given(ANY, ANY)
def test_whatever_a_server_sends_lifetimes_are_bounded_and_conditions_are_printable(
    first: HTTPHeaderDict, second: HTTPHeaderDict
) -> None:
    for terms in (terms_of(first, ARRIVAL), renewed(KNOWN, second, ARRIVAL)):
        if terms is None:
            continue
        assert ARRIVAL.monotonic_s <= terms.fresh_until_s <= ARRIVAL.monotonic_s + MAX_FRESH_S
        for name, value in terms.conditions().items():
            assert name in ("If-None-Match", "If-Modified-Since")
            assert len(value) <= MAX_ETAG_CHARACTERS
            assert value.isascii()
            assert value.isprintable()
        confirms(terms, second)


@given(ANY, st.sampled_from(["no-store", "private", "PRIVATE", "No-Store"]))
def test_a_server_can_forbid_caching_whatever_its_other_headers(others: HTTPHeaderDict, word: str) -> None:
    others.add("Cache-Control", word)

    assert terms_of(others, ARRIVAL) is None
    assert renewed(KNOWN, others, ARRIVAL) is None


@given(ANY)
def test_a_response_without_a_lifetime_is_never_fresh(others: HTTPHeaderDict) -> None:
    others.discard("Cache-Control")
    others.discard("Expires")

    terms = terms_of(others, ARRIVAL)

    assert terms is None or terms.fresh_until_s == ARRIVAL.monotonic_s


def test_hostile_headers_take_little_time() -> None:
    lines = [
        (name, text * 60_000) for name in ("Cache-Control", "ETag", "Age", "Date", "Vary") for text in ('"', "9", ",")
    ]
    began_s = time.process_time()

    terms_of(headers(*lines), ARRIVAL)
    confirms(KNOWN, headers(*lines))

    assert time.process_time() - began_s < 1
    assert math.isfinite(KNOWN.fresh_until_s)
