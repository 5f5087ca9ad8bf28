"""Bytes are counted where they come in: no reader above can ask a socket for more than it was allowed.

Python's readers trust what a server says: ``http.client`` reads a chunk of size -1 until memory ends. Whatever asks, a
`Meter` gives no more than is left, and then raises.
"""

from __future__ import annotations

import http.client
import io
from typing import Any


class Exceeded(http.client.HTTPException):
    """The server sent more than was allowed."""


class Meter(io.RawIOBase):
    """The raw end of a socket's file. It gives no byte before `allow`."""

    def __init__(self, raw: io.RawIOBase) -> None:
        super().__init__()
        self._raw = raw
        self._left_bytes = 0

    def allow(self, size_bytes: int) -> None:
        """Let so many bytes through from now on, whatever was left."""
        self._left_bytes = size_bytes

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        """Fill a part of the buffer; 0 at the end, None where nothing has come on a socket that does not wait.

        Raises:
            Exceeded: nothing is left.
        """
        if not self._left_bytes:
            raise Exceeded
        count = self._raw.readinto(memoryview(buffer)[: self._left_bytes])
        self._left_bytes -= count or 0
        return count

    def close(self) -> None:
        """Close the socket's file too."""
        if not self.closed:
            super().close()
            self._raw.close()
