"""The error of a command that was used wrongly."""

from __future__ import annotations

from producer.errors import NameshotError


class UsageError(NameshotError):
    """An argument or option cannot be used so; exit status 2."""
