"""What is kept between jobs: least recently used goes first, and the bytes are counted."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Hashable
from typing import Protocol, TypeVar


class Weighed(Protocol):
    """What knows how many bytes it takes: a numpy array, for one."""

    @property
    def nbytes(self) -> int:
        """How many."""


V = TypeVar("V", bound=Weighed)


class Bounded(OrderedDict[Hashable, V]):
    """An LRU, bounded in bytes, its keys' included: strangers' texts can weigh more than their vectors.

    Callers hold a lock of theirs.
    """

    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self._max_bytes = max_bytes
        self._bytes = 0

    @property
    def nbytes(self) -> int:
        """What is kept now, keys included."""
        return self._bytes

    def recall(self, key: Hashable) -> V | None:
        """The value, now the most recently used; None when it is not here."""
        if (found := self.get(key)) is not None:
            self.move_to_end(key)
        return found

    def remember(self, key: Hashable, value: V) -> None:
        """Keep one value, forgetting the least recently used while there are too many bytes."""
        self.forget(key)
        self[key] = value
        self._bytes += _bytes_of(key) + value.nbytes
        while self._bytes > self._max_bytes:
            oldest, dropped = self.popitem(last=False)
            self._bytes -= _bytes_of(oldest) + dropped.nbytes

    def forget(self, key: Hashable) -> None:
        """Keep no value for this key."""
        if (old := self.pop(key, None)) is not None:
            self._bytes -= _bytes_of(key) + old.nbytes


def _bytes_of(key: Hashable) -> int:
    """What a text, or a tuple of such, takes in memory."""
    return sys.getsizeof(key) + (sum(map(_bytes_of, key)) if isinstance(key, tuple) else 0)
