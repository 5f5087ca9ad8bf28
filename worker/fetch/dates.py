"""Dates in headers."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

#: The longest of the three forms that HTTP knows has 33.
MAX_CHARACTERS: Final = 64


def http_date_s(text: str) -> float | None:
    """The seconds since the epoch that a date stands for; None when it stands for none."""
    if len(text) > MAX_CHARACTERS:
        return None
    try:
        when = parsedate_to_datetime(text)
        return (when.replace(tzinfo=UTC) if when.tzinfo is None else when).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
