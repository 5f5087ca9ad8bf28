"""Whether a port speaks the other of TLS and plain text: asked only once a connection has failed, to say why."""

from __future__ import annotations

import socket
import ssl
from typing import Final

#: With two attempts to connect before it, a caller is still told within three seconds.
PATIENCE_S: Final = 0.4


def speaks_tls(host: str, port: int) -> bool:
    """Whether something there answers the first words of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is said to it
    try:
        with (
            socket.create_connection((host, port), PATIENCE_S) as connection,
            context.wrap_socket(connection, server_hostname=host),
        ):
            return True
    except ssl.SSLError as error:
        # An alert is TLS too: it wants a certificate, for one.
        return "ALERT" in (error.reason or "")
    except (OSError, ValueError):
        return False


def speaks_plain(host: str, port: int) -> bool:
    """Whether a Redis there answers in plain text."""
    try:
        with socket.create_connection((host, port), PATIENCE_S) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(1) in (b"+", b"-")
    except OSError:
        return False
