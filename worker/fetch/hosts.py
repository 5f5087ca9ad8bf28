"""Limits concurrent downloads per host and per address, and refuses hosts that keep failing."""

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

#: A timeout counts against a host that had this long to answer: a job's own timeout may be 1 ms, which proves nothing.
PATIENCE_S: Final = 3.0


class Visit:
    """One request to one host."""

    #: Set as soon as the host has answered anything, which shows that it is up.
    answered = False


class Hosts:
    """Admits downloads, one `visit` per hop. Thread-safe.

    Slots by name protect a site; slots by address protect a victim to which an attacker points many names. Circuits are
    by name only: on a CDN's address, one customer's failing site says nothing about another's.

    Args:
        per_host: concurrent downloads from one host and port, and from one address.
        patience_s: a timeout after less than this is not held against a host.
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
            is_first: whether this is the job's first attempt; a job's failures count once.
            queue: the queue whose share of the host's slots the request uses.

        Raises:
            FetchFailed: ``host_unavailable``, when the host has failed too often, or no slot came free in time.
            Cancelled: the scope was cancelled.
        """
        host = (target.host.removesuffix("."), target.port)
        if self._circuits.is_open(host):  # checked here too, so that a refused request does not wait for a slot
            raise _left_alone()
        with self._names.hold(host, scope, queue):
            entry = self._circuits.enter(host)
            if entry == "refused":
                raise _left_alone()
            visit, retry_after_s = Visit(), 0.0
            verdict: Verdict = "none"
            began_s = time.monotonic()
            try:
                yield visit
                verdict = "good"
            except FetchFailed as failure:
                if not failure.of_host:
                    verdict = "good" if visit.answered else "none"
                elif is_first or entry == "trial":
                    hasty = failure.code == "fetch_timeout" and time.monotonic() - began_s < self._patience_s
                    verdict = "none" if hasty else "bad"
                    retry_after_s = failure.retry_after_s or 0.0
                raise
            finally:
                self._circuits.leave(host, verdict, is_trial=entry == "trial", retry_after_s=retry_after_s)


def _left_alone() -> FetchFailed:
    return unavailable("the host failed too often lately, so the worker pauses its downloads; try again in a minute.")
