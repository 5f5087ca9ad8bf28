"""Parses dates in HTTP headers."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

#: Longer texts are not parsed. The longest of HTTP's date formats (RFC 9110, 5.6.7) has 33 characters; the limit leaves
#: room for extra spaces.
MAX_CHARACTERS: Final = 64


def http_date_s(text: str) -> float | None:
    """Return a date, read as UTC if it names no zone, in seconds since the epoch; None if malformed or too long."""
    if len(text) > MAX_CHARACTERS:
        return None
    try:
        when = parsedate_to_datetime(text)
        return (when.replace(tzinfo=UTC) if when.tzinfo is None else when).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
