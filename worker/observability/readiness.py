"""Tells whether a worker takes jobs now, or why not, for ``/readyz``, the ready file, and its lease (for doctor)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis

from worker.delivery.outages import is_wrong_type, name_of


@dataclass(slots=True)
class Readiness:
    """Checks the parts of a worker.

    Attributes:
        broker: a redis client of the broker's database, with timeouts below those of a probe.
        results: a redis client of the result backend's database, likewise.
        own_key: a hash in the broker's database that only this worker writes.
        engine_unavailable_reason: returns why the engine is unavailable; None while it is available.
        results_outage: returns the result backend's fault that was found while something waited for it; None otherwise.
        is_open: whether the worker has started and is not stopping.
        is_consuming: whether its event loop is connected to the broker.
        broker_refusal: returns why the broker hands out no messages although it answers; None if it hands them out.
    """

    broker: Any
    results: Any
    own_key: str
    engine_unavailable_reason: Callable[[], str | None]
    results_outage: Callable[[], str | None]
    is_open: bool = False
    is_consuming: bool = False
    broker_refusal: Callable[[], str | None] = lambda: None

    def takes_jobs(self) -> bool:
        """Whether the worker takes jobs, as far as is known without a call over the network."""
        return self.is_open and self.engine_unavailable_reason() is None and self.waits() is None

    def waits(self) -> str | None:
        """Return what a running worker waits for; None when it waits for nothing."""
        if not self.is_open:
            return None
        if not self.is_consuming:
            return "it is not connected to the broker"
        return self.results_outage() or self.broker_refusal()

    def not_ready_reason(self, unhealthy_reason: str | None) -> str | None:
        """Return why the worker takes no jobs now; None when it does.

        Args:
            unhealthy_reason: why the worker is unhealthy; None when it is healthy.
        """
        if not self.is_open:
            return "starting or stopping"
        known = unhealthy_reason or self.engine_unavailable_reason()
        if reason := known or self.broker_problem() or self.waits():
            return reason
        try:
            self.results.ping()
        except redis.RedisError:
            return "the result backend does not answer"
        return None

    def broker_problem(self) -> str | None:
        """Return why the broker is unusable; None when it accepts commands, including writes."""
        try:
            # It changes nothing, and fails like any write on a replica, a full disk or a lost quorum.
            self.broker.hdel(self.own_key, "")
        except redis.AuthenticationError as error:
            return f"the broker refuses this worker ({error})"
        except redis.RedisError as error:
            if isinstance(error, redis.ConnectionError | redis.TimeoutError):
                answers = isinstance(error, redis.BusyLoadingError)
                return "the broker is loading its data" if answers else "the broker does not answer"
            return None if is_wrong_type(error) else f"the broker takes no commands ({name_of(error)})"
        return None
