"""Decides how long a response may be reused without revalidation, by RFC 9111, for a shared cache without bodies.

We use neither cachecontrol nor hishel, because both need the stored response. In addition, cachecontrol supports
neither ``s-maxage`` nor ``Age`` and stores ``private`` responses, and hishel estimates a lifetime where the server
states none.

A malformed ``Cache-Control`` or ``Vary`` prevents reuse; malformed validators, dates and ages are ignored, and a
malformed lifetime counts as 0. The cache never uses a stale response without revalidation, so ``must-revalidate`` needs
no rule, and ``stale-while-revalidate`` and ``stale-if-error`` have no effect. This module does no I/O.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from email.utils import formatdate
from typing import Final
from urllib.request import parse_http_list

from urllib3 import HTTPHeaderDict

from worker.fetch.dates import http_date_s

#: A response is fresh for at most this long. An attacker who once responds in place of a host, for example with forged
#: DNS, must not choose its images for a year, and one revalidation per hour is cheap.
MAX_FRESH_S: Final = 3_600.0
#: Longer ETags are ignored, because the cache stores ETags and sends them back. Typical ones have 20 to 70 characters.
MAX_ETAG_CHARACTERS: Final = 256
#: A response with a longer Cache-Control is not reused.
MAX_CACHE_CONTROL_CHARACTERS: Final = 2_048
#: The end of 9999-12-31 is the latest time that an HTTP date can express.
LAST_DATE_S: Final = 253_402_300_799

_NAME: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_DIRECTIVE: Final = re.compile(rf'({_NAME})(?:=({_NAME}|"[^"\\]*"))?')
_ETAG: Final = re.compile(r'(?:W/)?("[\x21\x23-\x7e]*")')
#: A response whose ``Vary`` names one of these cannot be reused: the two headers differ between our requests, and ``*``
#: may mean any of them.
_DIFFERING: Final = frozenset({"*", "if-none-match", "if-modified-since"})


@dataclass(frozen=True, slots=True)
class Arrival:
    """When a response's headers arrived.

    Attributes:
        unix_s: the time by the system clock, to compare with dates in headers.
        monotonic_s: the time by `time.monotonic`.
        delay_s: the seconds from the request to the arrival.
    """

    unix_s: float
    monotonic_s: float
    delay_s: float


@dataclass(frozen=True, slots=True, repr=False)
class CacheTerms:
    """The terms on which a response may be reused.

    Attributes:
        etag: the validator for ``If-None-Match``; None if the response has none.
        last_modified_s: the validator for ``If-Modified-Since``, in seconds since the epoch; None if there is none.
        fresh_until_s: the time by `time.monotonic` until which the response needs no revalidation.
    """

    etag: str | None
    last_modified_s: int | None
    fresh_until_s: float

    def conditions(self) -> dict[str, str]:
        """Return the headers that make a request conditional; an empty dictionary if the terms have no validator."""
        if self.etag is not None:
            return {"If-None-Match": self.etag}
        if self.last_modified_s is not None:
            return {"If-Modified-Since": formatdate(self.last_modified_s, usegmt=True)}
        return {}


def terms_of(headers: HTTPHeaderDict, arrival: Arrival) -> CacheTerms | None:
    """Return the terms of a 200 response; None if it may not be reused, or is stale and cannot be revalidated."""
    etag = _only(headers, "ETag")
    if etag is not None and (len(etag) > MAX_ETAG_CHARACTERS or not _ETAG.fullmatch(etag)):
        etag = None
    modified_s = http_date_s(_only(headers, "Last-Modified") or "")
    # A file modified in the very second in which the response was sent may change again within it and keep its date.
    if modified_s is not None and not 0 <= modified_s < min(int(_sent_s(headers, arrival)), LAST_DATE_S):
        modified_s = None
    return _terms(headers, arrival, etag, None if modified_s is None else int(modified_s))


def renewed(known: CacheTerms, headers: HTTPHeaderDict, arrival: Arrival) -> CacheTerms | None:
    """Return the terms after a 304 response; None if the stored response may be used only for this request.

    If the 304 has no Cache-Control, the next use of the stored response needs another revalidation.
    """
    terms = _terms(headers, arrival, known.etag, known.last_modified_s)
    if terms is not None and "Cache-Control" not in headers:
        terms = replace(terms, fresh_until_s=arrival.monotonic_s)
    return terms


def confirms(known: CacheTerms, headers: HTTPHeaderDict) -> bool:
    """Return whether the 304's ETag or, if it has none, its Last-Modified matches the stored one.

    A 304 with neither, or a Last-Modified for which none is stored, confirms the stored response.
    """
    if etags := headers.getlist("ETag"):
        return known.etag is not None and [_opaque(etag) for etag in etags] == [_opaque(known.etag)]
    dates = headers.getlist("Last-Modified")
    return known.last_modified_s is None or all(http_date_s(date) == known.last_modified_s for date in dates)


def _terms(headers: HTTPHeaderDict, arrival: Arrival, etag: str | None, modified_s: int | None) -> CacheTerms | None:
    directives = _directives(headers)
    if directives is None or not directives.keys().isdisjoint({"no-store", "private"}) or _differs(headers):
        return None
    fresh_s = 0.0
    if "no-cache" not in directives:
        fresh_s = min(_lifetime_s(directives, headers, arrival) - _age_s(headers, arrival), MAX_FRESH_S)
    if fresh_s <= 0 and etag is None and modified_s is None:
        return None
    return CacheTerms(etag, modified_s, arrival.monotonic_s + max(0.0, fresh_s))


def _directives(headers: HTTPHeaderDict) -> dict[str, str] | None:
    """Return the values of Cache-Control by lower-case directive names; None if the header is malformed.

    A directive that occurs with different values has an empty value here.
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
    """Return whether another of our requests might get a different response, or ``Vary`` is malformed."""
    names = {name.strip().lower() for name in ",".join(headers.getlist("Vary")).split(",")} - {""}
    return not names.isdisjoint(_DIFFERING) or not all(re.fullmatch(_NAME, name) for name in names)


def _lifetime_s(directives: dict[str, str], headers: HTTPHeaderDict, arrival: Arrival) -> float:
    """Return the freshness lifetime in seconds since the response was sent; 0 if the server states no valid one."""
    for name in ("s-maxage", "max-age"):
        if name in directives:
            return _seconds(directives[name]) or 0.0
    expires_s = http_date_s(_only(headers, "Expires") or "")
    return 0.0 if expires_s is None else expires_s - _sent_s(headers, arrival)


def _age_s(headers: HTTPHeaderDict, arrival: Arrival) -> float:
    """Return the response's age in seconds (RFC 9111, 4.2.3)."""
    age_s = _seconds(",".join(headers.getlist("Age")).partition(",")[0].strip()) or 0.0
    return max(0.0, arrival.unix_s - _sent_s(headers, arrival), age_s + arrival.delay_s)


def _sent_s(headers: HTTPHeaderDict, arrival: Arrival) -> float:
    sent_s = http_date_s(_only(headers, "Date") or "")
    return arrival.unix_s if sent_s is None else sent_s


def _seconds(text: str) -> float | None:
    if not re.fullmatch("[0-9]+", text, re.ASCII):
        return None
    return float(text[:20])  # 20 digits exceed every bound


def _only(headers: HTTPHeaderDict, name: str) -> str | None:
    """Return the value of a header that occurs once; None if it is absent or occurs more often."""
    values = headers.getlist(name)
    return values[0].strip() if len(values) == 1 else None


def _opaque(etag: str) -> str | None:
    """Return an ETag's opaque part, for weak comparison (RFC 9110, 8.8.3.2); None if the ETag is malformed."""
    match = _ETAG.fullmatch(etag.strip())
    return match[1] if match else None
