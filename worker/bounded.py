"""A cache of arrays with a bound in bytes."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Hashable

import numpy as np
from numpy.typing import NDArray


class Bounded(OrderedDict[Hashable, NDArray[np.float32]]):
    """An LRU of arrays, bounded in bytes, its keys' included: strangers' texts can weigh more than their vectors.

    Callers hold the cache's lock.
    """

    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self._max_bytes = max_bytes
        self._bytes = 0

    def recall(self, key: Hashable) -> NDArray[np.float32] | None:
        """The array, now the most recently used; None when it is not here."""
        if (found := self.get(key)) is not None:
            self.move_to_end(key)
        return found

    def remember(self, key: Hashable, array: NDArray[np.float32]) -> None:
        """Keep one array, forgetting the least recently used while there are too many bytes."""
        if (old := self.pop(key, None)) is not None:
            self._bytes -= _bytes_of(key) + old.nbytes
        self[key] = array
        self._bytes += _bytes_of(key) + array.nbytes
        while self._bytes > self._max_bytes:
            oldest, dropped = self.popitem(last=False)
            self._bytes -= _bytes_of(oldest) + dropped.nbytes


def _bytes_of(key: Hashable) -> int:
    """What a text, or a tuple of such, takes in memory."""
    return sys.getsizeof(key) + (sum(map(_bytes_of, key)) if isinstance(key, tuple) else 0)
