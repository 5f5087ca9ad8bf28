"""Limits the bytes that any reader can receive from a socket.

Python's readers trust the server; ``http.client``, for example, reads a chunk of size -1 until memory runs out. A
`Meter` returns no more bytes than its caller has allowed, and then raises.
"""

from __future__ import annotations

import http.client
import io
from typing import Any


class Exceeded(http.client.HTTPException):
    """The server sent more than was allowed."""


class Meter(io.RawIOBase):
    """A raw stream over a socket's file, which returns bytes only after a call of `allow`."""

    def __init__(self, raw: io.RawIOBase) -> None:
        super().__init__()
        self._raw = raw
        self._left_bytes = 0

    def allow(self, size_bytes: int) -> None:
        """Allow this many bytes from now on, in place of what is left of an earlier allowance."""
        self._left_bytes = size_bytes

    def readable(self) -> bool:
        """Return True, because the stream is readable."""
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        """Read into the buffer; return the number of bytes, 0 at the end, or None if no bytes have arrived yet.

        Raises:
            Exceeded: the allowance is used up.
        """
        if not self._left_bytes:
            raise Exceeded
        count = self._raw.readinto(memoryview(buffer)[: self._left_bytes])
        self._left_bytes -= count or 0
        return count

    def close(self) -> None:
        """Close this stream and the socket's file."""
        if not self.closed:
            super().close()
            self._raw.close()
