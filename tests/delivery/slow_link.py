"""A relay between a worker and a real Valkey that delays one reply."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import Self


class SlowLink:
    """Relays connections to a port of this machine; a context manager.

    Args:
        to_port: The port of the server.
        marker: The relay delays the first reply that contains this text.
        slow_s: How long the end of that reply takes, in seconds; the relay sends its last bytes one by one.
    """

    def __init__(self, to_port: int, marker: bytes, slow_s: float) -> None:
        self._to_port = to_port
        self._marker = marker
        self._slow_s = slow_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        #: Set once the relay has sent the whole delayed reply.
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
