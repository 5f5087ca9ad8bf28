"""One answer of a server: its head checked, its bytes counted, its end noticed."""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
from typing import Any, cast

from worker.fetch.head import MAX_HEAD_BYTES, list_members, read_head
from worker.fetch.meter import Meter


class HttpAnswer(http.client.HTTPResponse):
    """http.client's, which interprets a head that was checked before. Bodies are read from `wire`, never by it.

    Attributes:
        meter: lets through the head; what a body may take is for its reader to allow.
        wire: the file that follows the head.
        has_surplus: the server sent more than this answer. Those bytes are dropped with the reader that had them in its
            buffer; but the rest of a second answer may be on its way, and must not become the answer to the next job's
            request.
    """

    has_surplus = False

    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self._sock = sock
        self.meter = Meter(self.fp.detach())
        self.wire = io.BufferedReader(self.meter)
        self.fp = cast("Any", self.wire)  # http.client's is typed as that of its own making

    def begin(self) -> None:
        """Read the head."""
        self.meter.allow(MAX_HEAD_BYTES)
        self.fp = cast("Any", io.BytesIO(read_head(self.wire)))
        try:
            super().begin()
        finally:
            self.fp = cast("Any", self.wire)
        # http.client reads the first of several fields.
        if "close" in list_members(self.headers.get_all("Connection", [])):
            self.will_close = True

    def _close_conn(self) -> None:
        """http.client's: called by `close`, which whoever has read the body to its end calls."""
        if not self.will_close and not self.wire.closed:
            self.meter.allow(1)
            timeout_s = self._sock.gettimeout()
            self._sock.settimeout(0)  # peek may read once: what has come, and nothing that has not
            with contextlib.suppress(OSError):  # TLS has a word of its own for nothing
                self.has_surplus = bool(self.wire.peek(1))
            with contextlib.suppress(OSError):
                self._sock.settimeout(timeout_s)
        super()._close_conn()  # type: ignore[misc]
