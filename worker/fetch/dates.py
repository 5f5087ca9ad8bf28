"""Parses dates in HTTP headers."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

#: Longer texts are not parsed. The longest of HTTP's date formats (RFC 9110, 5.6.7) has 33 characters; the rest is
#: slack, for more spaces.
MAX_CHARACTERS: Final = 64


def http_date_s(text: str) -> float | None:
    """Return a date in seconds since the epoch, as UTC if it has no zone; None if the text is malformed or too long."""
    if len(text) > MAX_CHARACTERS:
        return None
    try:
        when = parsedate_to_datetime(text)
        return (when.replace(tzinfo=UTC) if when.tzinfo is None else when).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
