"""Decides on which terms an answer may be reused: RFC 9111 for a shared cache that stores no bodies. Pure; no I/O.

The libraries judge whole stored answers, and differently: cachecontrol knows neither ``s-maxage`` nor ``Age`` and
stores ``private`` answers; hishel guesses a lifetime where the server gives none.

Malformed headers allow nothing. A stale answer is never used without revalidation, so ``must-revalidate`` needs no rule
of its own, and ``stale-while-revalidate`` and ``stale-if-error`` are ignored.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from email.utils import formatdate
from typing import Final
from urllib.request import parse_http_list

from urllib3 import HTTPHeaderDict

from worker.fetch.dates import http_date_s

#: An answer counts as fresh for at most this long. An attacker who once answers for a host, with forged DNS for
#: example, should not choose its pictures for a year, and one revalidation per hour is cheap.
MAX_FRESH_S: Final = 3_600.0
#: Longer ETags are ignored: the cache stores them and sends them back. Typical ones have 20 to 70 characters.
MAX_ETAG_CHARACTERS: Final = 256
#: An answer with a longer Cache-Control is not reused.
MAX_CACHE_CONTROL_CHARACTERS: Final = 2_048
#: This is the end of 9999-12-31, the last date that an HTTP date can express.
LAST_DATE_S: Final = 253_402_300_799

_NAME: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_DIRECTIVE: Final = re.compile(rf'({_NAME})(?:=({_NAME}|"[^"\\]*"))?')
_ETAG: Final = re.compile(r'(?:W/)?("[\x21\x23-\x7e]*")')
#: Request headers that vary between our requests; an answer that varies on one of them cannot be reused.
_DIFFERING: Final = frozenset({"*", "if-none-match", "if-modified-since"})


@dataclass(frozen=True, slots=True)
class Moment:
    """The arrival of an answer's headers.

    Attributes:
        unix_s: by the system clock, to compare with dates in headers.
        monotonic_s: by `time.monotonic`.
        delay_s: seconds since the request.
    """

    unix_s: float
    monotonic_s: float
    delay_s: float


@dataclass(frozen=True, slots=True, repr=False)
class CacheTerms:
    """The terms on which an answer may be reused.

    Attributes:
        etag: the validator for ``If-None-Match``.
        last_modified_s: the validator for ``If-Modified-Since``, in seconds since the epoch.
        fresh_until_s: by `time.monotonic`; until then no revalidation is needed.
    """

    etag: str | None
    last_modified_s: int | None
    fresh_until_s: float

    def conditions(self) -> dict[str, str]:
        """Return the conditional request's headers; empty without a validator."""
        if self.etag is not None:
            return {"If-None-Match": self.etag}
        if self.last_modified_s is not None:
            return {"If-Modified-Since": formatdate(self.last_modified_s, usegmt=True)}
        return {}


def terms_of(headers: HTTPHeaderDict, came: Moment) -> CacheTerms | None:
    """Return the terms of a 200 with these headers; None if it may not be reused, or reuse gains nothing."""
    etag = _only(headers, "ETag")
    if etag is not None and (len(etag) > MAX_ETAG_CHARACTERS or not _ETAG.fullmatch(etag)):
        etag = None
    modified_s = http_date_s(_only(headers, "Last-Modified") or "")
    # A file modified within the last second may change again within it and keep the same date.
    if modified_s is not None and not 0 <= modified_s < min(int(_sent_s(headers, came)), LAST_DATE_S):
        modified_s = None
    return _terms(headers, came, etag, None if modified_s is None else int(modified_s))


def renewed(known: CacheTerms, headers: HTTPHeaderDict, came: Moment) -> CacheTerms | None:
    """Return the terms after a 304; None if the answer may be used only this once.

    Without a Cache-Control the answer is fresh for this moment only.
    """
    terms = _terms(headers, came, known.etag, known.last_modified_s)
    if terms is not None and "Cache-Control" not in headers:
        terms = replace(terms, fresh_until_s=came.monotonic_s)
    return terms


def is_about(known: CacheTerms, headers: HTTPHeaderDict) -> bool:
    """Whether a 304 confirms the known answer, that is, names no other validator."""
    if etags := headers.getlist("ETag"):
        return known.etag is not None and [_opaque(etag) for etag in etags] == [_opaque(known.etag)]
    dates = headers.getlist("Last-Modified")
    return known.last_modified_s is None or all(http_date_s(date) == known.last_modified_s for date in dates)


def _terms(headers: HTTPHeaderDict, came: Moment, etag: str | None, modified_s: int | None) -> CacheTerms | None:
    directives = _directives(headers)
    if directives is None or not directives.keys().isdisjoint({"no-store", "private"}) or _differs(headers):
        return None
    fresh_s = 0.0
    if "no-cache" not in directives:
        fresh_s = min(_lifetime_s(directives, headers, came) - _age_s(headers, came), MAX_FRESH_S)
    if fresh_s <= 0 and etag is None and modified_s is None:
        return None
    return CacheTerms(etag, modified_s, came.monotonic_s + max(0.0, fresh_s))


def _directives(headers: HTTPHeaderDict) -> dict[str, str] | None:
    """Parse Cache-Control, names in lower case; None if malformed.

    A directive that is repeated with different values counts as empty.
    """
    text = ",".join(headers.getlist("Cache-Control"))
    if len(text) > MAX_CACHE_CONTROL_CHARACTERS:
        return None
    directives: dict[str, str] = {}
    for part in filter(None, parse_http_list(text)):
        if (match := _DIRECTIVE.fullmatch(part)) is None:
            return None
        name, value = match[1].lower(), (match[2] or "").strip('"')
        directives[name] = value if directives.get(name, value) == value else ""
    return directives


def _differs(headers: HTTPHeaderDict) -> bool:
    """Whether another of our requests might get a different answer, or the header is malformed."""
    names = {name.strip().lower() for name in ",".join(headers.getlist("Vary")).split(",")} - {""}
    return not names.isdisjoint(_DIFFERING) or not all(re.fullmatch(_NAME, name) for name in names)


def _lifetime_s(directives: dict[str, str], headers: HTTPHeaderDict, came: Moment) -> float:
    """Return the freshness lifetime in seconds since the answer was sent; 0 where the server gives none clearly."""
    for name in ("s-maxage", "max-age"):
        if name in directives:
            return _seconds(directives[name]) or 0.0
    expires_s = http_date_s(_only(headers, "Expires") or "")
    return 0.0 if expires_s is None else expires_s - _sent_s(headers, came)


def _age_s(headers: HTTPHeaderDict, came: Moment) -> float:
    """Compute the answer's age by RFC 9111, 4.2.3."""
    age_s = _seconds(",".join(headers.getlist("Age")).partition(",")[0].strip()) or 0.0
    return max(0.0, came.unix_s - _sent_s(headers, came), age_s + came.delay_s)


def _sent_s(headers: HTTPHeaderDict, came: Moment) -> float:
    sent_s = http_date_s(_only(headers, "Date") or "")
    return came.unix_s if sent_s is None else sent_s


def _seconds(text: str) -> float | None:
    if not re.fullmatch("[0-9]+", text, re.ASCII):
        return None
    return float(text[:20])  # 20 digits exceed every bound


def _only(headers: HTTPHeaderDict, name: str) -> str | None:
    """Return a header's value; None when there is none, or more than one."""
    values = headers.getlist(name)
    return values[0].strip() if len(values) == 1 else None


def _opaque(etag: str) -> str | None:
    """Return an ETag's opaque part, for weak comparison (RFC 9110, 8.8.3.2)."""
    match = _ETAG.fullmatch(etag.strip())
    return match[1] if match else None
