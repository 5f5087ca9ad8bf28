"""A relay between a worker and a real Valkey that delays one reply."""

from __future__ import annotations

import socket
import threading
import time

from tests.delivery.relay import Relay


class SlowLink(Relay):
    """Relays connections to a port of this machine; a context manager.

    Args:
        to_port: The port of the server.
        marker: The relay delays the first reply that contains this text.
        slow_s: How long the end of that reply takes, in seconds; the relay sends its last bytes one by one.
    """

    def __init__(self, to_port: int, marker: bytes, slow_s: float) -> None:
        super().__init__(to_port)
        self._marker = marker
        self._slow_s = slow_s
        #: Set once the relay has sent the whole delayed reply.
        self.has_arrived = threading.Event()

    def pass_on(self, data: bytes, source: socket.socket, sink: socket.socket, *, is_request: bool) -> bool:  # noqa: ARG002 - the relay's interface
        """Delay the first reply with the marker."""
        if not is_request and self._marker in data and not self.has_arrived.is_set():
            sink.sendall(data[:-10])
            for number in range(10):
                time.sleep(self._slow_s / 10)
                sink.sendall(data[len(data) - 10 + number :][:1])
            self.has_arrived.set()
        else:
            sink.sendall(data)
        return True
