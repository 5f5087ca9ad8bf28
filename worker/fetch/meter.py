"""Counts incoming bytes at the socket, so that no reader above can receive more than it was allowed.

Python's readers trust the server: ``http.client`` reads a chunk of size -1 until memory runs out. A `Meter` returns no
more bytes than allowed to any reader, and then raises.
"""

from __future__ import annotations

import http.client
import io
from typing import Any


class Exceeded(http.client.HTTPException):
    """The server sent more than was allowed."""


class Meter(io.RawIOBase):
    """A raw stream over a socket's file that returns no byte before `allow`."""

    def __init__(self, raw: io.RawIOBase) -> None:
        super().__init__()
        self._raw = raw
        self._left_bytes = 0

    def allow(self, size_bytes: int) -> None:
        """Allow this many more bytes; what was left of an earlier allowance lapses."""
        self._left_bytes = size_bytes

    def readable(self) -> bool:
        """Return True: the stream is readable."""
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        """Read into the buffer; return 0 at the end, None if a non-blocking socket has nothing to read.

        Raises:
            Exceeded: the allowance is used up.
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
