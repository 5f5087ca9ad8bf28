"""The delivery of one worker process, put together: its lease, its watch over itself, its suspects, its end."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from worker.delivery.dead_letters import DeadLetters
from worker.delivery.lease import Lease
from worker.delivery.liveness import Liveness
from worker.delivery.marks import Marks
from worker.delivery.names import DeliveryKeys
from worker.delivery.shutdown import Shutdown
from worker.delivery.suspects import Suspects
from worker.delivery.upkeep import Upkeep

logger = logging.getLogger(__name__)


class Delivery:
    """What the tasks and the signals of a worker need to know of how messages come and go.

    Args:
        client: a redis client on the broker's database, with timeouts well below a lease.
        keys: names, this worker's among them.
        marks: says what runs alone, and that this worker is leaving.
        max_attempts: unclean deaths that one job may be to blame for.
        drain_timeout_s: seconds for running jobs to finish after SIGTERM.
        device_busy_s: how long the oldest running batch has taken so far.
        device_limit_s: a batch that takes longer never ends.
        overdue: ids of the jobs that still run so many seconds after their deadline.
        waits: what this process waits for before it can take or answer jobs, in a few words; None when for nothing.
    """

    def __init__(
        self,
        client: Any,
        keys: DeliveryKeys,
        *,
        marks: Marks,
        max_attempts: int,
        drain_timeout_s: float,
        device_busy_s: Callable[[], float],
        device_limit_s: float,
        overdue: Callable[[float], list[str]],
        waits: Callable[[], str | None],
    ) -> None:
        self._marks = marks
        self.liveness = Liveness(
            device_busy_s=device_busy_s, device_limit_s=device_limit_s, overdue=overdue, waits=waits
        )
        self.lease = Lease(
            client,
            keys,
            unhealthy_reason=self.liveness.unhealthy_reason,
            warning=self.liveness.warning,
            on_stuck=self.end,
            on_broker_away=self.liveness.pause,  # the event loop may be waiting for the broker in a socket
        )
        self.upkeep = Upkeep(client, keys)
        self.shutdown = Shutdown(drain_timeout_s=drain_timeout_s, marks=marks, leave=self.lease.leave)
        self.dead_letters = DeadLetters(client, keys)
        self.suspects = Suspects(client, keys, max_attempts=max_attempts)

    def end(self, unhealthy_reason: str) -> None:
        """End a process that hangs: its jobs go to others, and what hangs is suspected."""
        logger.critical("%s: this worker ends, so that a new process can take over", unhealthy_reason)
        try:
            if len(overdue := self.liveness.overdue()) == 1:
                self._marks.blame(overdue[0])
            self.lease.abandon()
        except Exception as error:  # others will see the lease end
            logger.warning("could not return messages: %s", type(error).__name__)
        logging.shutdown()
        os._exit(os.EX_SOFTWARE)
