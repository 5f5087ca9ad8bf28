"""On which terms an answer may be used again: RFC 9111 for a shared cache that keeps no bodies. Pure; no I/O.

The libraries decide over whole stored answers, and not as is wanted here: cachecontrol knows neither ``s-maxage`` nor
``Age`` and keeps ``private`` answers, hishel guesses how long an answer is fresh whose server does not say so.

What cannot be read allows nothing. A stale answer is never used unasked, so ``must-revalidate`` needs no rule of its
own, and what would allow it (``stale-while-revalidate``, ``stale-if-error``) is not heard.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from email.utils import formatdate
from typing import Final
from urllib.request import parse_http_list

from urllib3 import HTTPHeaderDict

from worker.fetch.dates import http_date_s

#: However long its server calls it fresh. Whoever answers for a host once, by a forged DNS answer say, should not
#: choose its pictures for a year; and asking once an hour costs nothing.
MAX_FRESH_S: Final = 3_600.0
#: Longer ones count as none. Usual ones have 20 to 70; they are kept, and sent back.
MAX_ETAG_CHARACTERS: Final = 256
#: Longer ones allow nothing.
MAX_CACHE_CONTROL_CHARACTERS: Final = 2_048
#: 9999-12-31: no later date can be written.
LAST_DATE_S: Final = 253_402_300_799

_NAME: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_DIRECTIVE: Final = re.compile(rf'({_NAME})(?:=({_NAME}|"[^"\\]*"))?')
_ETAG: Final = re.compile(r'(?:W/)?("[\x21\x23-\x7e]*")')
#: What requests of ours differ in. All other headers are the same in each, or in none.
_DIFFERING: Final = frozenset({"*", "if-none-match", "if-modified-since"})


@dataclass(frozen=True, slots=True)
class Moment:
    """When an answer's headers came.

    Attributes:
        unix_s: by the calendar, which headers speak of.
        monotonic_s: by `time.monotonic`.
        delay_s: after they were asked for.
    """

    unix_s: float
    monotonic_s: float
    delay_s: float


@dataclass(frozen=True, slots=True, repr=False)
class CacheTerms:
    """On which terms an answer may be used again.

    Attributes:
        etag: to ask with whether it still holds.
        last_modified_s: likewise, since the epoch.
        fresh_until_s: by `time.monotonic`; before then nobody need be asked.
    """

    etag: str | None
    last_modified_s: int | None
    fresh_until_s: float

    def conditions(self) -> dict[str, str]:
        """The headers that ask for the answer only if it is another by now; none where there is nothing to ask with."""
        if self.etag is not None:
            return {"If-None-Match": self.etag}
        if self.last_modified_s is not None:
            return {"If-Modified-Since": formatdate(self.last_modified_s, usegmt=True)}
        return {}


def terms_of(headers: HTTPHeaderDict, came: Moment) -> CacheTerms | None:
    """The terms of a 200 whose headers these are; None: it may not be used again, or nothing is gained by it."""
    etag = _only(headers, "ETag")
    if etag is not None and (len(etag) > MAX_ETAG_CHARACTERS or not _ETAG.fullmatch(etag)):
        etag = None
    modified_s = http_date_s(_only(headers, "Last-Modified") or "")
    # What has changed within the last second may change again within it, and the date would be the same.
    if modified_s is not None and not 0 <= modified_s < min(int(_sent_s(headers, came)), LAST_DATE_S):
        modified_s = None
    return _terms(headers, came, etag, None if modified_s is None else int(modified_s))


def renewed(known: CacheTerms, headers: HTTPHeaderDict, came: Moment) -> CacheTerms | None:
    """The terms after a 304; None: the answer may be used this once. A 304 that does not say how long is for now."""
    terms = _terms(headers, came, known.etag, known.last_modified_s)
    if terms is not None and "Cache-Control" not in headers:
        terms = replace(terms, fresh_until_s=came.monotonic_s)
    return terms


def is_about(known: CacheTerms, headers: HTTPHeaderDict) -> bool:
    """Whether a 304 means the answer that was asked about: it names no other."""
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
    """Cache-Control, its names in lower case; one that is given twice and differently has no value. None: no sense."""
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
    """Whether another request of ours might get another answer, or one cannot tell."""
    names = {name.strip().lower() for name in ",".join(headers.getlist("Vary")).split(",")} - {""}
    return not names.isdisjoint(_DIFFERING) or not all(re.fullmatch(_NAME, name) for name in names)


def _lifetime_s(directives: dict[str, str], headers: HTTPHeaderDict, came: Moment) -> float:
    """From the moment it was sent; 0 where the server does not say so clearly."""
    for name in ("s-maxage", "max-age"):
        if name in directives:
            return _seconds(directives[name]) or 0.0
    expires_s = http_date_s(_only(headers, "Expires") or "")
    return 0.0 if expires_s is None else expires_s - _sent_s(headers, came)


def _age_s(headers: HTTPHeaderDict, came: Moment) -> float:
    """RFC 9111, 4.2.3."""
    age_s = _seconds(",".join(headers.getlist("Age")).partition(",")[0].strip()) or 0.0
    return max(0.0, came.unix_s - _sent_s(headers, came), age_s + came.delay_s)


def _sent_s(headers: HTTPHeaderDict, came: Moment) -> float:
    sent_s = http_date_s(_only(headers, "Date") or "")
    return came.unix_s if sent_s is None else sent_s


def _seconds(text: str) -> float | None:
    if not re.fullmatch("[0-9]+", text, re.ASCII):
        return None
    return float(text[:20])  # of more digits, as many are enough for ever


def _only(headers: HTTPHeaderDict, name: str) -> str | None:
    """A header's value; None when there is none, or more than one."""
    values = headers.getlist(name)
    return values[0].strip() if len(values) == 1 else None


def _opaque(etag: str) -> str | None:
    """What is compared of an ETag, weak or not."""
    match = _ETAG.fullmatch(etag.strip())
    return match[1] if match else None
