"""An HTTP response that checks its head strictly, limits the bytes it reads, and detects bytes after its end."""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
from typing import Any, cast

from worker.fetch.head import MAX_HEAD_BYTES, list_members, read_head
from worker.fetch.meter import Meter


class StrictResponse(http.client.HTTPResponse):
    """An `http.client` response whose head `read_head` checks before `http.client` parses it.

    Callers read the body from `wire`, because the body readers of `http.client` trust the server.

    Attributes:
        meter: limits the bytes that the readers receive; `begin` allows a head, and the body's reader allows the body.
        wire: the buffered stream; after `begin` its next byte is the first of the body.
        has_surplus: whether the server sent bytes after this response. The connection must not be reused then, because
            the next request could receive those bytes as its response.
    """

    has_surplus = False

    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self._sock = sock
        self.meter = Meter(self.fp.detach())
        self.wire = io.BufferedReader(self.meter)
        self.fp = cast("Any", self.wire)  # typeshed declares the exact class of reader that http.client creates

    def begin(self) -> None:
        """Read and parse the head."""
        self.meter.allow(MAX_HEAD_BYTES)
        self.fp = cast("Any", io.BytesIO(read_head(self.wire)))
        try:
            super().begin()
        finally:
            self.fp = cast("Any", self.wire)
        # The module http.client reads only the first of several Connection fields.
        if "close" in list_members(self.headers.get_all("Connection", [])):
            self.will_close = True

    def _close_conn(self) -> None:
        """Check for bytes after the response; http.client's `close` calls this method."""
        if not self.will_close and not self.wire.closed:
            self.meter.allow(1)
            timeout_s = self._sock.gettimeout()
            self._sock.settimeout(0)  # so that peek does not wait for bytes that have not arrived
            with contextlib.suppress(OSError):  # TLS raises SSLWantReadError if no bytes have arrived
                self.has_surplus = bool(self.wire.peek(1))
            with contextlib.suppress(OSError):
                self._sock.settimeout(timeout_s)
        super()._close_conn()  # type: ignore[misc]
