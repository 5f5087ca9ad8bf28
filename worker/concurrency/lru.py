"""A cache that evicts the least recently used entries to stay within a number of bytes."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Hashable
from typing import Protocol, TypeVar


class Weighed(Protocol):
    """A value with a known size in bytes, such as a numpy array."""

    @property
    def nbytes(self) -> int:
        """The size in bytes."""


V = TypeVar("V", bound=Weighed)


class Bounded(OrderedDict[Hashable, V]):
    """An LRU cache bounded in bytes; keys count too, because untrusted texts can be larger than their vectors.

    It is not thread-safe, so callers must hold a lock.
    """

    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self._max_bytes = max_bytes
        self._bytes = 0

    @property
    def nbytes(self) -> int:
        """The bytes of all entries, keys included."""
        return self._bytes

    def recall(self, key: Hashable) -> V | None:
        """Return the value and mark it as the most recently used; return None if the key is absent."""
        if (found := self.get(key)) is not None:
            self.move_to_end(key)
        return found

    def remember(self, key: Hashable, value: V) -> None:
        """Store a value, then evict the least recently used entries while the cache is too large."""
        self.forget(key)
        self[key] = value
        self._bytes += _bytes_of(key) + value.nbytes
        while self._bytes > self._max_bytes:
            oldest, dropped = self.popitem(last=False)
            self._bytes -= _bytes_of(oldest) + dropped.nbytes

    def forget(self, key: Hashable) -> None:
        """Remove the entry of this key, if any."""
        if (old := self.pop(key, None)) is not None:
            self._bytes -= _bytes_of(key) + old.nbytes


def _bytes_of(key: Hashable) -> int:
    """Return how many bytes of memory a text, or a tuple of texts, uses."""
    return sys.getsizeof(key) + (sum(map(_bytes_of, key)) if isinstance(key, tuple) else 0)
