"""A small web server on loopback that serves the bundled pictures, and local files by signed URL.

A worker fetches only over HTTP. To classify a file on this machine, `file_url` creates a URL with the file's path and a
signature of it. The server serves only the bundled pictures and paths with a valid signature, and keeps no state.
"""

from __future__ import annotations

import base64
import hmac
import io
import os
import socketserver
import sys
import threading
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO, Final, Self
from urllib.parse import quote, unquote

from producer.errors import EmbeddedError

HOST: Final = "127.0.0.1"
#: 128 bits of HMAC-SHA256 cannot be guessed.
_SIGNATURE_HEX_DIGITS: Final = 32


def file_url(server_url: str, secret: str, file: Path) -> str:
    """Return the URL under which a `PictureServer` with this secret serves a file; raise `OSError` if it is missing."""
    path = str(file.resolve(strict=True))
    encoded = base64.urlsafe_b64encode(path.encode()).decode().rstrip("=")
    return f"{server_url}/files/{_signature(secret, path)}/{encoded}/{quote(file.name)}"


class PictureServer:
    """Serves ``/pictures/NAME`` and signed ``/files/…`` from a thread until it is closed.

    Args:
        pictures: the path of each picture, by its name in URLs.
        port: the TCP port; 0 selects any free port.
        secret: the key with which `file_url` signs; None if the server must serve only the pictures.

    Raises:
        EmbeddedError: the port is in use or not permitted.
    """

    def __init__(self, pictures: Mapping[str, Path], *, port: int = 0, secret: str | None = None) -> None:
        try:
            self._server = _Server((HOST, port), partial(_Handler, dict(pictures), secret))
        except OSError as error:
            raise EmbeddedError(
                f"port {port} on {HOST} cannot be used ({error.strerror}); choose another with --port."
            ) from None
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="pictures", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """The TCP port on which the server listens."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """The server's URL, without a final slash."""
        return f"http://{HOST}:{self.port}"

    @property
    def fetch_allow(self) -> str:
        """The value of ``NAMESHOT_FETCH_ALLOW`` with which a worker may fetch from this server."""
        return f"{HOST}/32:{self.port}"

    def picture_url(self, name: str) -> str:
        """Return the URL of the picture with this name."""
        return f"{self.url}/pictures/{quote(name)}"

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _signature(secret: str, path: str) -> str:
    return hmac.new(secret.encode(), path.encode(), "sha256").hexdigest()[:_SIGNATURE_HEX_DIGITS]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        # The inherited method looks up this host's name, which can take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a worker that closes the connection early; print any other error, which is a bug."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(SimpleHTTPRequestHandler):
    timeout = 30
    server_version = "nameshot"
    sys_version = ""

    def __init__(self, pictures: Mapping[str, Path], secret: str | None, *arguments: Any) -> None:
        self._pictures, self._secret = pictures, secret
        # The default is the working directory, which may no longer exist; `translate_path` uses no directory.
        super().__init__(*arguments, directory=os.sep)

    def send_head(self) -> io.BytesIO | BinaryIO | None:
        """Send the headers and return the body: for ``/`` a list of the pictures, else the file of `translate_path`."""
        if self._parts() != [""]:
            return super().send_head()
        lines = ["nameshot is running here. Pictures to classify:", *(f"/pictures/{name}" for name in self._pictures)]
        body = "\n".join(lines).encode() + b"\n"
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        return io.BytesIO(body)

    def translate_path(self, path: str) -> str:  # noqa: ARG002 - `self.path` is the same path
        """Return the path of the file to send, or an empty string, which names no file."""
        return str(self._find(self._parts()) or "")

    def _parts(self) -> list[str]:
        return [unquote(part) for part in self.path.partition("?")[0].split("/")[1:]]

    def _find(self, parts: list[str]) -> Path | None:
        match parts:
            case ["pictures", name]:
                return self._pictures.get(name)
            case ["files", signature, encoded, _] if self._secret is not None:
                try:
                    path = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
                except ValueError:  # the part is not base64 of UTF-8
                    return None
                if not hmac.compare_digest(signature.encode(), _signature(self._secret, path).encode()):
                    return None
                # Opening a named pipe would block forever.
                return Path(path) if Path(path).is_file() else None
        return None

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Log nothing, since a URL's path may be a secret."""
