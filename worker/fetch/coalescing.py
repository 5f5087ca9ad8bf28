"""Lets concurrent jobs of a queue share one download of the same URL."""

from __future__ import annotations

import math
import threading
from typing import Generic, Protocol, TypeVar

from producer.contract.names import Queue
from producer.errors import JobFailed
from worker.concurrency.cancel_scope import CancelScope
from worker.concurrency.single_flight import SingleFlight

T_co = TypeVar("T_co", covariant=True)


class Downloads(Protocol[T_co]):
    """Downloads images: a `Fetcher`, or a layer in front of one."""

    def fetch(self, url: str, *, scope: CancelScope | None = None, queue: Queue = "default") -> T_co:
        """Download a URL within the worker's limits and this scope; raises `JobFailed` or `Cancelled`."""

    def close(self) -> None:
        """Close every connection."""


class CoalescingFetcher(Generic[T_co]):
    """A `Fetcher` that downloads a URL once while several jobs of a queue want it. Thread-safe.

    Each job keeps its own timeout and cancellation; a fault of the URL or of the server's answer fails them all. Once a
    download is over, nothing of it is kept, not even the URL.

    Args:
        fetcher: downloads the images.
        timeout_s: the duration of its longest download, in seconds.

    Attributes:
        shared: images that another job's download delivered.
    """

    def __init__(self, fetcher: Downloads[T_co], timeout_s: float) -> None:
        self._fetcher = fetcher
        self._timeout_s = timeout_s
        self._flights: SingleFlight[T_co] = SingleFlight()
        self._lock = threading.Lock()
        self.shared = 0

    def fetch(self, url: str, *, scope: CancelScope | None = None, queue: Queue = "default") -> T_co:
        """Download like `Fetcher.fetch`, or join a download that began before this call."""
        within = (scope or CancelScope(math.inf)).within(self._timeout_s)
        try:
            # `within` covers both waiting and downloading: a job whose leader failed downloads in the time left.
            data, is_anothers = self._flights.do(
                # Queues do not share downloads, since a download for a lower queue may wait for a slot or stall.
                (url, queue),
                within,
                lambda: self._fetcher.fetch(url, scope=within, queue=queue),
            )
        except TimeoutError:
            failure = JobFailed("fetch_timeout")
        else:
            with self._lock:
                self.shared += is_anothers
            return data
        raise failure

    def close(self) -> None:
        """Implement `Downloads.close`."""
        self._fetcher.close()
