"""Whether a worker takes jobs now, and if not, why: for ``/readyz``, the ready file, and its lease (for doctor)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis

from worker.delivery.outages import is_outage, name_of


class Readiness:
    """Asks the parts of a worker.

    Args:
        broker: a redis client on the broker's database, with timeouts below those of a probe.
        results: the same for the result backend's.
        own_key: a hash in the broker's database that only this worker writes.
        takes_jobs: whether it was started, and not told to stop.
        is_consuming: whether its event loop is connected to the broker.
        engine_unavailable_reason: why it has no engine; None while it has.
        outage: what the result backend was found to lack while something waited for it, or why the broker hands out no
            messages; None otherwise.
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
        """What is known without asking anyone."""
        return self._takes_jobs() and self._engine_unavailable_reason() is None and self.waits() is None

    def waits(self) -> str | None:
        """What a worker that runs waits for; None when for nothing."""
        if not self._takes_jobs():
            return None
        return self._outage() if self._is_consuming() else "it is not connected to the broker"

    def complaint(self, complaint: str | None) -> str | None:
        """Why no job is taken now; None when jobs are.

        Args:
            complaint: of a worker that is ill.
        """
        if not self._takes_jobs():
            return "starting or stopping"
        if complaint:
            return complaint
        if reason := self._engine_unavailable_reason():
            return reason
        if found := self.broker_complaint() or self.waits():
            return found
        try:
            self._results.ping()
        except redis.RedisError:
            return "the result backend does not answer"
        return None

    def broker_complaint(self) -> str | None:
        """Why the broker cannot be worked with; None when it takes commands, those that write among them."""
        try:
            # Changes nothing; and a replica, a disk that is full or a quorum that is lost would refuse it.
            self._broker.hdel(self._own_key, "")
        except redis.AuthenticationError as error:
            return f"the broker refuses this worker ({error})"
        except redis.RedisError as error:
            if isinstance(error, redis.ConnectionError | redis.TimeoutError):
                answers = isinstance(error, redis.BusyLoadingError)
                return "the broker is loading its data" if answers else "the broker does not answer"
            return f"the broker takes no commands ({name_of(error)})" if is_outage(error) else None
        return None
