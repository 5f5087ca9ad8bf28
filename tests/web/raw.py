"""HTTP as bytes, for requests that no library sends."""

import socket
from typing import NamedTuple

TIMEOUT_S = 60.0


class Reply(NamedTuple):
    """A response as it arrived."""

    status: int
    head: str
    body: bytes


def exchange(port: int, request: bytes) -> Reply:
    """Send bytes on a new connection, and read until the server closes it or the response is complete."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
        connection.sendall(request)
        return receive(connection)


def receive(connection: socket.socket) -> Reply:
    """Read one response with a Content-Length."""
    data = b""
    while b"\r\n\r\n" not in data:
        received = connection.recv(65_536)
        assert received, data
        data += received
    head, _, body = data.partition(b"\r\n\r\n")
    text = head.decode("latin-1").lower()
    length = int(text.partition("content-length: ")[2].partition("\r\n")[0] or 0)
    while len(body) < length:
        received = connection.recv(65_536)
        assert received, data
        body += received
    return Reply(int(text.split()[1]), text, body)
