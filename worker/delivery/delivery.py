"""The delivery of one worker process, put together: its lease, its watch over itself, its suspects, its end."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from worker.delivery.dead_letters import DeadLetters
from worker.delivery.lease import Lease
from worker.delivery.names import DeliveryKeys
from worker.delivery.shutdown import Departure
from worker.delivery.suspects import MARK_S, Deaths, Escort, OnPoisoned, Suspects
from worker.delivery.vitality import Vitality

logger = logging.getLogger(__name__)


class Delivery:
    """What the tasks and the signals of a worker need to know of how messages come and go.

    Args:
        client: a redis client on the broker's database, with timeouts well below a lease.
        keys: names, this worker's among them.
        max_attempts: unclean deaths that one job may be to blame for.
        drain_timeout_s: seconds for running jobs to finish after SIGTERM.
        device_busy_s: how long the oldest running batch has taken so far.
        device_limit_s: a batch that takes longer never ends.
    """

    def __init__(
        self,
        client: Any,
        keys: DeliveryKeys,
        *,
        max_attempts: int,
        drain_timeout_s: float,
        device_busy_s: Callable[[], float],
        device_limit_s: float,
    ) -> None:
        self._client = client
        self._keys = keys
        self.vitality = Vitality(device_busy_s=device_busy_s, device_limit_s=device_limit_s)
        self.lease = Lease(client, keys, complaint=self.vitality.complaint, on_hopeless=self.end)
        self.departure = Departure(drain_timeout_s=drain_timeout_s, leave=self.lease.leave)
        self.dead_letters = DeadLetters(client, keys)
        self._suspects = Suspects(client, keys, max_attempts=max_attempts)

    @contextmanager
    def running(
        self, job_id: str, deaths: Deaths, timeout_s: float, on_poisoned: OnPoisoned
    ) -> Iterator[Escort | None]:
        """Run a job: watched, and alone if it is suspected; then with an escort for its images.

        Raises:
            JobFailed: ``poisoned``.
        """
        with self._suspects.guard(job_id, deaths, on_poisoned) as escort, self.vitality.job(job_id, timeout_s):
            yield escort

    def acquit(self, job_id: str) -> None:
        """A suspected job needs no further run."""
        self._suspects.acquit(job_id)

    def end(self, complaint: str) -> None:
        """End a process that hangs: its jobs go to others, and what hangs is suspected."""
        logger.critical("%s: this worker ends, so that a new process can take over", complaint)
        try:
            if len(overdue := self.vitality.overdue()) == 1:
                self._client.set(self._keys.alone, overdue[0], ex=MARK_S)
            self.lease.abandon()
        except Exception as error:  # others will see the lease end
            logger.warning("could not return messages: %s", type(error).__name__)
        logging.shutdown()
        os._exit(os.EX_SOFTWARE)
