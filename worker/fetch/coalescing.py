"""Lets concurrent jobs of one queue share a download of the same URL."""

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
    """An object that downloads images: a `Fetcher`, or a layer in front of one."""

    def fetch(self, url: str, *, scope: CancelScope | None = None, queue: Queue = "default") -> T_co:
        """Download a URL within the worker's limits and this scope.

        Raises:
            JobFailed: the download failed.
            Cancelled: the scope was cancelled.
        """

    def close(self) -> None:
        """Close every connection."""


class CoalescingFetcher(Generic[T_co]):
    """A layer in front of a `Fetcher` that downloads a URL once for all jobs of a queue that need it. Thread-safe.

    Each job keeps its own timeout and cancellation. A failure that is not retryable fails all jobs that share the
    download. Once a download has ended, this object keeps nothing of it, not even the URL.

    Args:
        fetcher: downloads the images.
        timeout_s: the longest time that one of the fetcher's downloads may take, in seconds.

    Attributes:
        shared: the number of images that jobs got from another job's download.
    """

    def __init__(self, fetcher: Downloads[T_co], timeout_s: float) -> None:
        self._fetcher = fetcher
        self._timeout_s = timeout_s
        self._flights: SingleFlight[T_co] = SingleFlight()
        self._lock = threading.Lock()
        self.shared = 0

    def fetch(self, url: str, *, scope: CancelScope | None = None, queue: Queue = "default") -> T_co:
        """Download like `Fetcher.fetch`, or wait for a download of the same URL that another job has begun."""
        within = (scope or CancelScope(math.inf)).within(self._timeout_s)
        try:
            # The scope `within` covers the wait for another job's download and, if that fails, a download of our own.
            data, is_anothers = self._flights.do(
                # Queues share no downloads, because a download for a less important queue waits longer for a slot.
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
