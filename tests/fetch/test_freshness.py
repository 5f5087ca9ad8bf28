"""What a server's headers allow: RFC 9111 for a shared cache, and nothing that cannot be read."""

import math
import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3 import HTTPHeaderDict

from worker.fetch.freshness import MAX_ETAG_CHARACTERS, MAX_FRESH_S, Arrival, CacheTerms, confirms, renewed, terms_of

#: Whole seconds, as dates are.
NOW_S = 1_800_000_000
ARRIVAL = Arrival(unix_s=NOW_S, monotonic_s=5_000.0, delay_s=2.0)
#: Makes an answer worth keeping, whatever else it says.
ETAG = ("ETag", '"v1"')


def date(after_s: int = 0) -> str:
    return formatdate(NOW_S + after_s, usegmt=True)


def headers(*lines: tuple[str, str]) -> HTTPHeaderDict:
    return HTTPHeaderDict(list(lines))


def fresh_s(*lines: tuple[str, str]) -> float | None:
    """For how long an answer with an ETag and these headers is fresh; None where it may not be kept."""
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
def test_an_answer_is_fresh_for_as_long_as_its_server_says_less_the_time_it_took(
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
def test_what_is_not_for_a_shared_cache_or_cannot_be_read_is_not_kept(control: str) -> None:
    assert fresh_s(cached(control)) is None


def test_headers_that_are_given_twice_are_one() -> None:
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
def test_a_lifetime_that_makes_no_sense_is_none(control: str) -> None:
    assert not fresh_s(cached(control))


@pytest.mark.parametrize("age", ["99999999999", "9" * 1_000, str(2**64)])
def test_nothing_is_fresh_for_longer_than_an_hour(age: str) -> None:
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
def test_without_a_maximal_age_expires_counts_from_the_date_and_nothing_is_guessed(
    lines: list[tuple[str, str]], expected_s: float
) -> None:
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
def test_an_answer_is_as_old_as_its_age_or_its_date_says(lines: list[tuple[str, str]], expected_s: float) -> None:
    assert fresh_s(cached("max-age=60"), *lines) == expected_s


@pytest.mark.parametrize("names", ["Origin", "Accept, accept-encoding", "User-Agent, Cookie", ""])
def test_an_answer_may_vary_by_what_all_requests_of_ours_have_alike(names: str) -> None:
    assert fresh_s(cached("max-age=60"), ("Vary", names)) == 58


@pytest.mark.parametrize("names", ["*", "Accept, *", "If-None-Match", "a b", "Accept; *", "\xff"])
def test_an_answer_that_varies_otherwise_is_not_kept(names: str) -> None:
    assert fresh_s(cached("max-age=60"), ("Vary", names)) is None


@pytest.mark.parametrize("etag", ['"v1"', 'W/"v1"', '""', '"' + "x" * (MAX_ETAG_CHARACTERS - 2) + '"'])
def test_an_etag_is_asked_with_as_it_stands(etag: str) -> None:
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
def test_without_a_plain_etag_the_date_is_asked_with(etags: list[str]) -> None:
    lines = [("ETag", etag) for etag in etags]

    terms = terms_of(headers(*lines, ("Last-Modified", "Sunday, 06-Nov-94 08:49:37 GMT")), ARRIVAL)

    assert terms is not None
    assert terms.conditions() == {"If-Modified-Since": "Sun, 06 Nov 1994 08:49:37 GMT"}


@pytest.mark.parametrize(
    "modified", ["", "0", "yesterday", date(0), date(60), "Thu, 01 Jan 1960 00:00:00 GMT", "Mon, 1" + " " * 60_000]
)
def test_a_date_that_says_nothing_is_not_asked_with(modified: str) -> None:
    """Nor one of this very second, within which the picture may change again."""
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
def test_a_304_that_names_another_answer_is_not_about_ours(
    known: CacheTerms, lines: list[tuple[str, str]], expected: bool
) -> None:
    assert confirms(known, headers(*lines)) is expected


def test_a_304_renews_what_it_says_and_keeps_what_to_ask_with() -> None:
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
def test_whatever_a_server_says_is_bounded_and_can_be_asked_with(first: HTTPHeaderDict, second: HTTPHeaderDict) -> None:
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
def test_whatever_else_a_server_says_it_may_forbid_to_keep_an_answer(others: HTTPHeaderDict, word: str) -> None:
    others.add("Cache-Control", word)

    assert terms_of(others, ARRIVAL) is None
    assert renewed(KNOWN, others, ARRIVAL) is None


@given(ANY)
def test_nothing_is_fresh_that_its_server_gave_no_lifetime(others: HTTPHeaderDict) -> None:
    others.discard("Cache-Control")
    others.discard("Expires")

    terms = terms_of(others, ARRIVAL)

    assert terms is None or terms.fresh_until_s == ARRIVAL.monotonic_s


def test_hostile_headers_cost_no_time() -> None:
    lines = [
        (name, text * 60_000) for name in ("Cache-Control", "ETag", "Age", "Date", "Vary") for text in ('"', "9", ",")
    ]
    began_s = time.process_time()

    terms_of(headers(*lines), ARRIVAL)
    confirms(KNOWN, headers(*lines))

    assert time.process_time() - began_s < 1
    assert math.isfinite(KNOWN.fresh_until_s)
