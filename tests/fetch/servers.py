"""A web server on loopback whose responses a test determines byte by byte."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self


@dataclass
class Exchange:
    """One request, and the means to respond to it correctly or not."""

    sock: socket.socket
    request: str
    connection: int
    over: threading.Event

    @property
    def path(self) -> str:
        return self.request.split(" ", 2)[1]

    @property
    def headers(self) -> dict[str, str]:
        lines = self.request.split("\r\n")[1:]
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def answer(self, body: bytes = b"", status: str = "200 OK", headers: Sequence[str] = ()) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)

    def redirect(self, location: str, status: str = "302 Found") -> None:
        self.answer(status=status, headers=[f"Location: {location}"])

    def hang_up(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        """Reset the connection."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.sock.close()

    def drip(self, data: bytes, every_s: float) -> None:
        """Send the data again and again until the client hangs up or the test is over."""
        while not self.over.wait(every_s):
            self.send(data)

    def stall(self) -> None:
        """Send nothing more until the test is over."""
        self.over.wait()


Script = Callable[[Exchange], None]


@dataclass
class ScriptedServer:
    """Runs ``script`` for every request; a context manager. ``requests`` holds all requests, in order."""

    script: Script
    tls: ssl.SSLContext | None = None
    #: Called with each accepted socket before the server reads anything, for example to stall a TLS handshake.
    on_accept: Callable[[socket.socket, threading.Event], None] | None = None
    address: str = "127.0.0.1"
    requests: list[str] = field(default_factory=list)
    connections: int = 0

    def __enter__(self) -> Self:
        self._over = threading.Event()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server((self.address, 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._sockets:
            sock.close()

    def url(self, path: str = "/image.png", host: str | None = None) -> str:
        scheme = "https" if self.tls else "http"
        return f"{scheme}://{host or self.address}:{self.port}{path}"

    def hang_up_all(self) -> None:
        """Close every open connection, as a server does with idle ones."""
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(sock)
            self.connections += 1
            threading.Thread(target=self._serve, args=(sock, self.connections), daemon=True).start()

    def _serve(self, sock: socket.socket, connection: int) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self.on_accept is not None:
                self.on_accept(sock, self._over)
            if self.tls is not None:
                sock = self.tls.wrap_socket(sock, server_side=True)
                self._sockets.append(sock)
            while (request := _read_request(sock)) is not None:
                self.requests.append(request)
                self.script(Exchange(sock, request, connection, self._over))
        sock.close()


def _read_request(sock: socket.socket) -> str | None:
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        piece = sock.recv(65_536)
        if not piece:
            return None
        data += piece
    return data.decode("latin-1")
