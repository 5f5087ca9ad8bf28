"""What the HTTP front counts of itself, in Prometheus' text format; templates of routes, never paths or ids."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH"})
_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The metrics of one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "nameshot_http_requests",
            "requests by route, method and status",
            ("route", "method", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "nameshot_http_request_seconds",
            "duration of requests, waits included",
            ("route", "method"),
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self.streams = Gauge("nameshot_http_streams", "open streams of events", registry=self._registry)
        self.waiting = Gauge("nameshot_http_waiting", "requests that wait for an answer", registry=self._registry)

    def served(self, route: str, method: str, status: int, duration_s: float) -> None:
        """Count one request; status 0 if the connection ended without a response."""
        method = method if method in _METHODS else "other"
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route, method).observe(duration_s)

    def text(self) -> bytes:
        """Return all metrics."""
        return generate_latest(self._registry)
