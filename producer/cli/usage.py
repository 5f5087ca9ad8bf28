"""The error for wrong usage of a command."""

from __future__ import annotations

from producer.errors import NameshotError


class UsageError(NameshotError):
    """An argument or option is invalid; exit status 2."""
