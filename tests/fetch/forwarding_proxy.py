"""A small HTTP proxy on loopback that opens tunnels for CONNECT and forwards requests in absolute form."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections.abc import Collection
from typing import Self
from urllib.parse import urlsplit


class ForwardingProxy:
    """Forwards to loopback; a context manager. ``requests`` holds the heads of the requests, in order.

    Args:
        credentials: the ``USER:PASSWORD`` that the proxy requires.
        unreachable: addresses for which the proxy responds 502.
    """

    def __init__(self, credentials: str | None = None, unreachable: Collection[str] = ()) -> None:
        self._expected = credentials and f"Basic {base64.b64encode(credentials.encode()).decode()}"
        self._unreachable = unreachable
        self._sockets: list[socket.socket] = []
        self.requests: list[str] = []
        self.connections = 0

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                self.connections += 1
                self._sockets.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            server: socket.socket | None = None
            while head := _read_head(client):
                self.requests.append(head)
                if self._expected and f"\r\nproxy-authorization: {self._expected}\r\n".lower() not in head.lower():
                    client.sendall(b"HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n")
                    continue
                method, target, _ = head.split(" ", 2)
                parts = urlsplit(target if method != "CONNECT" else f"//{target}")
                if parts.hostname in self._unreachable:
                    client.sendall(b"HTTP/1.1 502 Away\r\nContent-Length: 0\r\n\r\n")
                    continue
                if server is None:
                    server = socket.create_connection((parts.hostname or "", parts.port or 80))
                    self._sockets.append(server)
                    threading.Thread(target=_copy, args=(server, client), daemon=True).start()
                    if method == "CONNECT":
                        client.sendall(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 p\r\n\r\n")
                        _copy(client, server)
                        return
                lines = head.split("\r\n")
                lines[0] = f"{method} {target.split(parts.netloc, 1)[1]} HTTP/1.1"
                kept = [line for line in lines if not line.lower().startswith("proxy-")]
                server.sendall("\r\n".join(kept).encode("latin-1"))


def _read_head(sock: socket.socket) -> str:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        if not (byte := sock.recv(1)):
            return ""
        head += byte
    return head.decode("latin-1")


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
