"""What can go wrong with the processes that `nameshot demo` and `nameshot up` start."""

from __future__ import annotations

from producer.errors import NameshotError


class EmbeddedError(NameshotError):
    """An embedded process could not be started, or ended by itself; the message says which and what to do."""
