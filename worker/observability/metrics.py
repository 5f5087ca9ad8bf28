"""A worker's HTTP port for ``/metrics`` (Prometheus), ``/healthz`` and ``/readyz``.

No metric has a URL, a host or a candidate label as a label value.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from producer.contract.result import Result

logger = logging.getLogger(__name__)

#: The buckets range from the shortest decoding time (1 ms) to the time limit of a job (60 s).
STAGE_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BATCH_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
#: If other workers on this machine use the port, the worker tries this many ports, which is more than one worker per
#: core needs.
PORTS_TO_TRY: Final = 1024


class Telemetry:
    """The metrics of one worker process."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.registry = registry
        self._images = Counter(
            "nameshot_images", "Images by outcome: ok, an error code, or cancelled", ["code"], registry=registry
        )
        self._jobs = Counter(
            "nameshot_jobs", "Jobs by answer: ok, an error code, cancelled, or expired", ["code"], registry=registry
        )
        self._stages = Histogram(
            "nameshot_stage_duration_seconds",
            "Seconds that an image with a ranking spent in each stage",
            ["stage"],
            buckets=STAGE_BUCKETS_S,
            registry=registry,
        )
        self._batches = Histogram(
            "nameshot_batch_size",
            "Number of images in the forward pass that processed each image",
            buckets=BATCH_BUCKETS,
            registry=registry,
        )

    def succeeded(self, result: Result) -> None:
        """Count one image with a ranking, and record the durations of its stages."""
        self._images.labels("ok").inc()
        timings = result.timings_ms
        stages = [("queued", timings.queued), ("fetch", timings.fetch), ("wait", timings.wait)]
        if result.batch_size:  # an image with a cached embedding has neither stage
            self._batches.observe(result.batch_size)
            stages += [("decode", timings.decode), ("forward", timings.forward)]
        for stage, duration_ms in stages:
            if duration_ms is not None:
                self._stages.labels(stage).observe(duration_ms / 1000)

    def failed(self, code: str) -> None:
        """Count one image without a ranking, by its error code or ``cancelled``."""
        self._images.labels(code).inc()

    def answered(self, code: str) -> None:
        """Count one answered job, of one image or of many."""
        self._jobs.labels(code).inc()


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
