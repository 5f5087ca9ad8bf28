"""Who may be asked now: so many downloads at once per host and per address, and none from hosts that only fail."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from producer.contract import Queue
from worker.concurrency.cancel_scope import CancelScope
from worker.fetch.circuits import Circuits, Verdict
from worker.fetch.failures import FetchFailed, unavailable
from worker.fetch.slots import Slots
from worker.fetch.url_policy import Target

#: A timeout is the host's fault if it had this long: jobs choose their own timeouts, and one of 1 ms says nothing.
PATIENCE_S: Final = 3.0


class Visit:
    """One request to one host and its answer."""

    #: Set as soon as the host has answered anything: then it is up.
    answered = False


class Hosts:
    """Lets downloads in, one `visit` per hop. Thread-safe.

    The slots by name bound what a site gets; those by address bound what a victim gets to whom somebody points many
    names. The circuits are by name only: on the address of a CDN one customer's failing site is not another's.

    Args:
        per_host: downloads at once from one host and port, and from one address.
        patience_s: a silence that is shorter is not held against a host.
    """

    def __init__(self, per_host: int, patience_s: float = PATIENCE_S) -> None:
        self.addresses = Slots(per_host)
        self._names = Slots(per_host)
        self._circuits = Circuits()
        self._patience_s = patience_s

    @contextmanager
    def visit(self, target: Target, scope: CancelScope, *, is_first: bool, queue: Queue = "default") -> Iterator[Visit]:
        """Ask a host within this context; what it is left with is the host's record.

        Args:
            target: where to.
            scope: how long to wait for a slot.
            is_first: whether this is the job's first attempt; a job's further failures are no news.
            queue: whose share of the host's slots it has.

        Raises:
            FetchFailed: ``host_unavailable``, when the host has failed too often, or no slot came free in time.
            Cancelled: somebody has cancelled the scope.
        """
        host = (target.host.removesuffix("."), target.port)
        if self._circuits.is_open(host):  # not only after waiting for a slot
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
    return unavailable("the host failed too often lately and is left alone for a while; try again in a minute.")
