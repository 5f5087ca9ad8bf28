"""A connection over which one reply is long under way, between a worker and a real Valkey."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import Self


class SlowLink:
    """Relays connections to a port of this machine; a context manager.

    Args:
        to_port: of the server.
        marker: the first reply that holds it ends slowly: never silent for long, but only after `slow_s`.
    """

    def __init__(self, to_port: int, marker: bytes, slow_s: float) -> None:
        self._to_port = to_port
        self._marker = marker
        self._slow_s = slow_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        #: Set once the whole of that reply is sent.
        self.has_arrived = threading.Event()

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
                for ends in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._relay, args=ends, daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, is_reply: bool) -> None:
        with suppress(OSError), source, sink:
            while data := source.recv(65536):
                if is_reply and self._marker in data and not self.has_arrived.is_set():
                    sink.sendall(data[:-10])
                    for number in range(10):
                        time.sleep(self._slow_s / 10)
                        sink.sendall(data[len(data) - 10 + number :][:1])
                    self.has_arrived.set()
                else:
                    sink.sendall(data)
