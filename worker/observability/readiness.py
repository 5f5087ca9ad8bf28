"""Tells whether a worker takes jobs now, or why not, for ``/readyz``, the ready file, and its lease (for doctor)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis

from worker.delivery.outages import is_wrong_type, name_of


class Readiness:
    """Checks the parts of a worker.

    Args:
        broker: a redis client of the broker's database, with timeouts below those of a probe.
        results: a redis client of the result backend's database, likewise.
        own_key: a hash in the broker's database that only this worker writes.
        takes_jobs: returns whether the worker has started and is not stopping.
        is_consuming: returns whether its event loop is connected to the broker.
        engine_unavailable_reason: returns why the engine is unavailable; None while it is available.
        outage: returns the result backend's fault that was found while something waited for it, or why the broker hands
            out no messages; None otherwise.
    """

    def __init__(
        self,
        broker: Any,
        results: Any,
        *,
        own_key: str,
        takes_jobs: Callable[[], bool],
        is_consuming: Callable[[], bool],
        engine_unavailable_reason: Callable[[], str | None],
        outage: Callable[[], str | None],
    ) -> None:
        self._broker = broker
        self._results = results
        self._own_key = own_key
        self._takes_jobs = takes_jobs
        self._is_consuming = is_consuming
        self._engine_unavailable_reason = engine_unavailable_reason
        self._outage = outage

    def takes_jobs(self) -> bool:
        """Whether the worker takes jobs, as far as is known without a call over the network."""
        return self._takes_jobs() and self._engine_unavailable_reason() is None and self.waits() is None

    def waits(self) -> str | None:
        """Return what a running worker waits for; None when it waits for nothing."""
        if not self._takes_jobs():
            return None
        return self._outage() if self._is_consuming() else "it is not connected to the broker"

    def not_ready_reason(self, unhealthy_reason: str | None) -> str | None:
        """Return why the worker takes no jobs now; None when it does.

        Args:
            unhealthy_reason: why the worker is unhealthy; None when it is healthy.
        """
        if not self._takes_jobs():
            return "starting or stopping"
        if unhealthy_reason:
            return unhealthy_reason
        if reason := self._engine_unavailable_reason():
            return reason
        if found := self.broker_problem() or self.waits():
            return found
        try:
            self._results.ping()
        except redis.RedisError:
            return "the result backend does not answer"
        return None

    def broker_problem(self) -> str | None:
        """Return why the broker is unusable; None when it accepts commands, including writes."""
        try:
            # It changes nothing, and fails like any write on a replica, a full disk or a lost quorum.
            self._broker.hdel(self._own_key, "")
        except redis.AuthenticationError as error:
            return f"the broker refuses this worker ({error})"
        except redis.RedisError as error:
            if isinstance(error, redis.ConnectionError | redis.TimeoutError):
                answers = isinstance(error, redis.BusyLoadingError)
                return "the broker is loading its data" if answers else "the broker does not answer"
            return None if is_wrong_type(error) else f"the broker takes no commands ({name_of(error)})"
        return None
