"""Determines whether a worker takes jobs now, or why not, for ``/readyz``, the ready file and ``nameshot doctor``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis

from worker.delivery.outages import is_wrong_type, name_of


@dataclass(slots=True)
class Readiness:
    """Checks whether each part of a worker allows it to take jobs.

    Attributes:
        broker: a Redis client for the broker's database, with timeouts shorter than those of probes.
        results: a Redis client for the result backend's database, with timeouts shorter than those of probes.
        own_key: the key of a hash in the broker's database that only this worker writes.
        engine_unavailable_reason: returns why the engine is unavailable; None while it is available.
        results_outage: returns why answers wait for the result backend; None while no answer waits.
        is_open: whether the worker has started and is not stopping.
        is_consuming: whether the event loop is connected to the broker.
        broker_refusal: returns why the broker replies but hands out no messages; None while it hands them out.
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
        """Return whether the worker takes jobs, as far as it knows without a network call."""
        return self.is_open and self.engine_unavailable_reason() is None and self.waits() is None

    def waits(self) -> str | None:
        """Return why a running worker must wait before it can take jobs; None if it need not wait."""
        if not self.is_open:
            return None
        if not self.is_consuming:
            return "it is not connected to the broker"
        return self.results_outage() or self.broker_refusal()

    def not_ready_reason(self, unhealthy_reason: str | None) -> str | None:
        """Return why the worker takes no jobs now; None while it takes jobs.

        Args:
            unhealthy_reason: why the worker is unhealthy; None while it is healthy.
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
        """Return why the broker is unusable; None if it accepts commands, including writes."""
        try:
            # This command changes nothing, but fails like any write on a replica, with a full disk or without a quorum.
            self.broker.hdel(self.own_key, "")
        except redis.AuthenticationError as error:
            return f"the broker refuses this worker ({error})"
        except redis.RedisError as error:
            if isinstance(error, redis.ConnectionError | redis.TimeoutError):
                answers = isinstance(error, redis.BusyLoadingError)
                return "the broker is loading its data" if answers else "the broker does not answer"
            return None if is_wrong_type(error) else f"the broker takes no commands ({name_of(error)})"
        return None
