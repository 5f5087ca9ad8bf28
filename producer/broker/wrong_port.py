"""After a failed connection, probe whether the port speaks TLS instead of plain text, or the reverse."""

from __future__ import annotations

import socket
import ssl
from typing import Final

#: Short enough that the caller gets its error within three seconds even after two attempts to connect.
PROBE_TIMEOUT_S: Final = 0.4


def speaks_tls(host: str, port: int) -> bool:
    """Return whether the server at this port speaks TLS."""
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
        # A server that sends an alert speaks TLS too; for example, it may require a client certificate.
        return "ALERT" in (error.reason or "")
    except (OSError, ValueError):
        return False


def speaks_plain(host: str, port: int) -> bool:
    """Return whether the server at this port replies to PING in plain text, as Redis does."""
    try:
        with socket.create_connection((host, port), PROBE_TIMEOUT_S) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(1) in (b"+", b"-")
    except OSError:
        return False
