"""How many streams of events may be open: in one process, and of one key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from producer.web.problems import Problem

MAX_OF_A_KEY: Final = 32


class Places:
    """The open streams of one process."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._of_keys: Counter[str] = Counter()

    @contextmanager
    def taken(self, kid: str) -> Iterator[None]:
        """Take a place for the time of the block; raises a `Problem` if there is none."""
        if self._of_keys.total() >= self._most or self._of_keys[kid] >= MAX_OF_A_KEY:
            raise Problem("too_many_streams", headers={"Retry-After": "5"})
        self._of_keys[kid] += 1
        try:
            yield
        finally:
            self._of_keys[kid] -= 1
