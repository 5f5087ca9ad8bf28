"""Relays connections between a worker and a real Valkey."""

from __future__ import annotations

import socket
import threading
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Self


class Relay(ABC):
    """Relays connections to a port of this machine; a context manager.

    Args:
        to_port: the port of the server.
    """

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    @abstractmethod
    def pass_on(self, data: bytes, source: socket.socket, sink: socket.socket, *, is_request: bool) -> bool:
        """Do something with what one side sent; return whether the connection goes on."""

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
                if not self.pass_on(data, source, sink, is_request=is_request):
                    return
