"""Assembles the delivery of one worker process: lease, upkeep, liveness, suspects, dead letters, shutdown."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from worker.delivery.broker_clock import BrokerClock
from worker.delivery.dead_letters import DeadLetters
from worker.delivery.lease import Lease
from worker.delivery.liveness import Liveness
from worker.delivery.marks import Marks
from worker.delivery.moves import postpone_for
from worker.delivery.names import DeliveryKeys
from worker.delivery.outages import Outage
from worker.delivery.shutdown import Shutdown
from worker.delivery.suspects import Suspects
from worker.delivery.times import Times
from worker.delivery.upkeep import Upkeep

logger = logging.getLogger(__name__)


class Delivery:
    """The parts of delivery that a worker's tasks and signal handlers use.

    Args:
        client: a Redis client for the broker's database, with timeouts well below a lease.
        keys: the key names, including this worker's.
        marks: records which job runs alone, or that this worker is shutting down.
        max_attempts: the number of worker deaths at which a job is poisoned.
        drain_timeout_s: seconds for running jobs to finish after SIGTERM.
        liveness: detects what is stuck in this worker.
        times: when this worker counts as stuck, and when as dead.
        on_leaving: called before this process ends without Celery's own shutdown.
    """

    def __init__(
        self,
        client: Any,
        keys: DeliveryKeys,
        *,
        marks: Marks,
        max_attempts: int,
        drain_timeout_s: float,
        liveness: Liveness,
        times: Times,
        on_leaving: Callable[[], None],
    ) -> None:
        self._client, self._keys = client, keys
        self._broker = Outage("the broker", "does not postpone jobs", lambda: client.hdel(keys.in_flight, ""))
        self._marks = marks
        self._on_leaving = on_leaving
        self.liveness = liveness
        self.clock = BrokerClock()
        self.lease = Lease(
            client,
            keys,
            unhealthy_reason=liveness.unhealthy_reason,
            warning=liveness.warning,
            on_stuck=self.end,
            on_broker_unreachable=liveness.pause,  # the event loop may block on its socket to the broker
            times=times,
            clock=self.clock,
        )
        self.upkeep = Upkeep(client, keys)
        self.shutdown = Shutdown(drain_timeout_s=drain_timeout_s, marks=marks, leave=self._leave)
        self.dead_letters = DeadLetters(client, keys)
        self.suspects = Suspects(client, keys, max_attempts=max_attempts)

    def postpone_for(self, tag: str, seconds: float) -> None:
        """Postpone a held message until ``seconds`` from now; while the broker is down, wait for it.

        Raises:
            RedisError: the broker is up, but refuses to postpone the message.
        """
        self._broker.outlast(lambda: postpone_for(self._client, self._keys, tag, seconds))

    def _leave(self) -> None:
        self._on_leaving()
        self.lease.leave()

    def end(self, unhealthy_reason: str) -> None:
        """End this stuck process and requeue its jobs; if exactly one job hangs, blame only that job."""
        logger.critical("%s: this worker ends, so that a new process can take over", unhealthy_reason)
        try:
            self._on_leaving()
            if len(overdue := self.liveness.overdue()) == 1:
                self._marks.blame(overdue[0])
        finally:
            self.lease.leave("gone")
            logging.shutdown()
            os._exit(os.EX_SOFTWARE)
