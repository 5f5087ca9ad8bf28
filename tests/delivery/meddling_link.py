"""A proxy that answers some requests itself, between a worker and a real Valkey."""

from __future__ import annotations

import socket

from tests.delivery.relay import Relay


class MeddlingLink(Relay):
    """Relays connections to a port of this machine; a context manager.

    Args:
        to_port: of the server.
        marker: a request that holds it never reaches the server while there are `replies`.
    """

    def __init__(self, to_port: int, marker: bytes) -> None:
        super().__init__(to_port)
        self._marker = marker
        #: What the next such requests are answered with, one by one; what is empty ends the connection instead.
        self.replies: list[bytes] = []

    def pass_on(self, data: bytes, source: socket.socket, sink: socket.socket, *, is_request: bool) -> bool:
        """Answer a request with the marker in the server's place while there are replies."""
        if is_request and self.replies and self._marker in data:
            if not (reply := self.replies.pop(0)):
                return False
            source.sendall(reply)
        else:
            sink.sendall(data)
        return True
