"""A server's answer whose head is checked, whose bytes are counted, and whose surplus is detected."""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
from typing import Any, cast

from worker.fetch.head import MAX_HEAD_BYTES, list_members, read_head
from worker.fetch.meter import Meter


class HttpAnswer(http.client.HTTPResponse):
    """An `http.client` response that parses a head checked before. Bodies are read from `wire`, never by http.client.

    Attributes:
        meter: lets the head through; the body's reader allows the body's bytes.
        wire: the stream, which continues with the body after `begin`.
        has_surplus: whether the server sent more than this answer. Its reader's buffer is dropped, but the rest of a
            second answer may be on its way, and must not become the answer to the next job's request.
    """

    has_surplus = False

    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self._sock = sock
        self.meter = Meter(self.fp.detach())
        self.wire = io.BufferedReader(self.meter)
        self.fp = cast("Any", self.wire)  # http.client types it as the reader that it makes itself

    def begin(self) -> None:
        """Read and parse the head."""
        self.meter.allow(MAX_HEAD_BYTES)
        self.fp = cast("Any", io.BytesIO(read_head(self.wire)))
        try:
            super().begin()
        finally:
            self.fp = cast("Any", self.wire)
        # http.client looks only at the first of several Connection fields.
        if "close" in list_members(self.headers.get_all("Connection", [])):
            self.will_close = True

    def _close_conn(self) -> None:
        """Check for surplus bytes; http.client's `close` calls this once the body was read to its end."""
        if not self.will_close and not self.wire.closed:
            self.meter.allow(1)
            timeout_s = self._sock.gettimeout()
            self._sock.settimeout(0)  # so that peek reads only bytes that have arrived
            with contextlib.suppress(OSError):  # SSLWantReadError: nothing buffered
                self.has_surplus = bool(self.wire.peek(1))
            with contextlib.suppress(OSError):
                self._sock.settimeout(timeout_s)
        super()._close_conn()  # type: ignore[misc]
