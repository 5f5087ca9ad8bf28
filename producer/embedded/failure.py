"""The error of the processes that `nameshot demo` and `nameshot up` start."""

from __future__ import annotations

from producer.errors import NameshotError


class EmbeddedError(NameshotError):
    """An embedded process could not be started, or ended unexpectedly; the message names it and says what to do."""
