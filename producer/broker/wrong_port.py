"""After a failed connection, probe whether the port speaks TLS instead of plain text, or the reverse."""

from __future__ import annotations

import socket
import ssl
from typing import Final

#: After two attempts to connect, the caller still gets its error within three seconds.
PROBE_TIMEOUT_S: Final = 0.4


def speaks_tls(host: str, port: int) -> bool:
    """Return whether a server there answers a TLS handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # no data is sent
    try:
        with (
            socket.create_connection((host, port), PROBE_TIMEOUT_S) as connection,
            context.wrap_socket(connection, server_hostname=host),
        ):
            return True
    except ssl.SSLError as error:
        # An alert is TLS too: for example, the server requires a client certificate.
        return "ALERT" in (error.reason or "")
    except (OSError, ValueError):
        return False


def speaks_plain(host: str, port: int) -> bool:
    """Return whether a Redis there answers in plain text."""
    try:
        with socket.create_connection((host, port), PROBE_TIMEOUT_S) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(1) in (b"+", b"-")
    except OSError:
        return False
