"""A worker's HTTP port for ``/metrics`` (Prometheus), ``/healthz`` and ``/readyz``."""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from worker.observability.metrics import Telemetry

logger = logging.getLogger(__name__)

#: If other workers on this machine use the port, the worker tries this many ports, which is more than one worker per
#: core needs.
PORTS_TO_TRY: Final = 1024


class Probes:
    """The HTTP server for ``/metrics``, ``/healthz`` and ``/readyz``.

    Args:
        not_ready: returns why this worker takes no jobs now, or None while it takes jobs.
        not_healthy: returns why only a restart can help this worker, or None while it is healthy.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        *,
        host: str,
        port: int,
        not_ready: Callable[[], str | None],
        not_healthy: Callable[[], str | None],
    ) -> None:
        pages: dict[str, Callable[[], tuple[int, str, bytes]]] = {
            "/metrics": lambda: (200, CONTENT_TYPE_LATEST, generate_latest(telemetry.registry)),
            "/healthz": lambda: _verdict(not_healthy()),
            "/readyz": lambda: _verdict(not_ready() or not_healthy()),
        }

        class Handler(BaseHTTPRequestHandler):
            timeout = 5

            def do_GET(self) -> None:  # http.server calls the method by this name
                page = pages.get(self.path.partition("?")[0])
                status, kind, body = page() if page else (404, "text/plain", b"not found\n")
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the parameter's inherited name
                """Log nothing, because probes send a request every few seconds."""

        self._server = _listen(host, port, Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="probes", daemon=True).start()

    def close(self) -> None:
        """Stop the server and close its port."""
        self._server.shutdown()
        self._server.server_close()


def _listen(host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    """Return a server on the port; if that is in use, log a warning and use the next free one.

    Raises:
        OSError: no port can be bound.
    """
    last = min(port + PORTS_TO_TRY, 65_536) - 1
    for candidate in range(port, last + 1):
        try:
            server = ThreadingHTTPServer((host, candidate), handler)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        server.daemon_threads = True
        if candidate != port:
            logger.warning("metrics port %d is in use; using %d instead", port, candidate)
        return server
    raise OSError(errno.EADDRINUSE, f"ports {port} to {last} are all in use")


def _verdict(reason: str | None) -> tuple[int, str, bytes]:
    return (200, "text/plain", b"ok\n") if reason is None else (503, "text/plain", f"{reason}\n".encode())
