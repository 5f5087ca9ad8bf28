"""Jobs of a queue that want the same URL at the same moment share one download."""

from __future__ import annotations

import math
import threading
from typing import Generic, Protocol, TypeVar

from producer.contract import Queue
from producer.errors import JobFailed
from worker.concurrency.cancel_scope import CancelScope
from worker.concurrency.single_flight import SingleFlight
from worker.fetch.failures import TOOK_TOO_LONG

T_co = TypeVar("T_co", covariant=True)


class Downloads(Protocol[T_co]):
    """What is asked for images: a `Fetcher`, or what stands before one."""

    def fetch(
        self,
        url: str,
        *,
        timeout_s: float | None = None,
        scope: CancelScope | None = None,
        queue: Queue = "default",
    ) -> T_co:
        """What is at a URL, within the worker's limits; raises `JobFailed` or `Cancelled`."""
        ...

    def close(self) -> None:
        """Close every connection."""
        ...


class CoalescingFetcher(Generic[T_co]):
    """A `Fetcher` that asks for a URL once while several jobs of a queue want it. Thread-safe.

    Each asker has its own time and its own cancellation, and what is wrong with the URL or with its server's answer is
    wrong for all. Nothing is kept once a download is over, the URL neither.

    Args:
        fetcher: downloads.
        timeout_s: of its longest download, in seconds.

    Attributes:
        shared: images that came with another's download.
    """

    def __init__(self, fetcher: Downloads[T_co], timeout_s: float) -> None:
        self._fetcher = fetcher
        self._timeout_s = timeout_s
        self._flights: SingleFlight[T_co] = SingleFlight()
        self._lock = threading.Lock()
        self.shared = 0

    def fetch(
        self,
        url: str,
        *,
        timeout_s: float | None = None,
        scope: CancelScope | None = None,
        queue: Queue = "default",
    ) -> T_co:
        """As `Fetcher.fetch`, from a download that may have begun before this call."""
        time_s = self._timeout_s if timeout_s is None else min(timeout_s, self._timeout_s)
        within = (scope or CancelScope(math.inf)).within(time_s)
        try:
            # Whoever waited in vain has the rest of its time: the scope is narrower than `timeout_s` by then.
            data, is_anothers = self._flights.do(
                # A queue's images wait for no other queue's: its download may wait for a slot, or stall.
                (url, queue),
                within,
                lambda: self._fetcher.fetch(url, scope=within, queue=queue),
            )
        except TimeoutError:
            failure = JobFailed("fetch_timeout", TOOK_TOO_LONG)
        else:
            with self._lock:
                self.shared += is_anothers
            return data
        raise failure

    def close(self) -> None:
        """As `Fetcher.close`."""
        self._fetcher.close()
