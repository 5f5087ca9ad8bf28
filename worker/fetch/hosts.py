"""Limits concurrent downloads per host and per address, and refuses downloads from hosts that failed too often."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from producer.contract.names import Queue
from worker.concurrency.cancel_scope import CancelScope
from worker.fetch.circuits import Circuits, Verdict
from worker.fetch.failures import FetchFailed, unavailable
from worker.fetch.slots import Slots
from worker.fetch.url_policy import Target

#: A timeout counts against the host only after this long, because a job's own timeout may be as short as 1 ms.
PATIENCE_S: Final = 3.0


class Visit:
    """One request to one host."""

    #: Whether the host has sent a response, whatever its status. The host works in that case.
    has_responded = False


class Hosts:
    """Admits requests, one `visit` for each request of a download. Thread-safe.

    Slots per name protect a site; slots per address protect a victim if an attacker points many names at the victim's
    address. Circuits are per name only: if one customer's site on a CDN's address fails, another's may work.

    Args:
        per_host: the largest number of concurrent downloads from one host and port, and from one address.
        patience_s: a timeout counts against the host only if the request lasted at least this many seconds.
    """

    def __init__(self, per_host: int, patience_s: float = PATIENCE_S) -> None:
        self.addresses = Slots(per_host)
        self._names = Slots(per_host)
        self._circuits = Circuits()
        self._patience_s = patience_s

    @contextmanager
    def visit(self, target: Target, scope: CancelScope, *, is_first: bool, queue: Queue = "default") -> Iterator[Visit]:
        """Take a slot for one request and record its outcome in the host's circuit.

        Args:
            target: the request's target.
            scope: limits the wait for a slot.
            is_first: whether this is the download's first attempt; a later attempt's failure counts only in a trial.
            queue: the queue whose share of the host's slots the request uses.

        Raises:
            FetchFailed: ``host_unavailable``: the host has failed too often, or no slot became free in time.
            Cancelled: the scope was cancelled.
        """
        host = (target.host.removesuffix("."), target.port)
        if self._circuits.is_open(host):  # an early check, so that a refused request does not wait for a slot
            raise _paused()
        with self._names.hold(host, scope, queue):
            entry = self._circuits.enter(host)
            if entry == "refused":
                raise _paused()
            visit, retry_after_s = Visit(), 0.0
            verdict: Verdict = "none"
            began_s = time.monotonic()
            try:
                yield visit
                verdict = "good"
            except FetchFailed as failure:
                if not failure.of_host:
                    verdict = "good" if visit.has_responded else "none"
                elif is_first or entry == "trial":
                    hasty = failure.code == "fetch_timeout" and time.monotonic() - began_s < self._patience_s
                    verdict = "none" if hasty else "bad"
                    retry_after_s = failure.retry_after_s or 0.0
                raise
            finally:
                self._circuits.leave(host, verdict, is_trial=entry == "trial", retry_after_s=retry_after_s)


def _paused() -> FetchFailed:
    return unavailable("the host failed too often lately, so the worker pauses its downloads; try again in a minute.")
