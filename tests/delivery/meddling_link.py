"""A proxy that answers some requests itself, between a worker and a real Valkey."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self


class MeddlingLink:
    """Relays connections to a port of this machine; a context manager.

    Args:
        to_port: of the server.
        marker: a request that holds it never reaches the server while there are `replies`.
    """

    def __init__(self, to_port: int, marker: bytes) -> None:
        self._to_port = to_port
        self._marker = marker
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        #: What the next such requests are answered with, one by one; what is empty ends the connection instead.
        self.replies: list[bytes] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", self._to_port))
                for ends in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._relay, args=ends, daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, is_request: bool) -> None:
        with suppress(OSError), source, sink:
            while data := source.recv(65536):
                if is_request and self.replies and self._marker in data:
                    if not (reply := self.replies.pop(0)):
                        return
                    source.sendall(reply)
                else:
                    sink.sendall(data)
