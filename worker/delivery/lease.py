"""A worker says that it lives, and returns to the queues what the dead have held.

The lease is a key that expires. It is renewed by a thread, but only while the worker is well: a process that hangs
must not keep its jobs. Whoever finds a lease ended moves all that its worker held back to the front of the queues.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from worker.delivery.dead_letters import put_back_arguments
from worker.delivery.held import give_back
from worker.delivery.names import DeliveryKeys, beginning_of, is_known_dead
from worker.delivery.scripts import RECLAIM, RESUME
from worker.delivery.upkeep_scripts import ELECT, RENEW, UPDATE_LEASE

logger = logging.getLogger(__name__)

#: A killed worker's jobs wait this long at most, and one round of looking. Three renewals may fail in between.
LEASE_S: Final = 9.0
ROUND_S: Final = 2.5
#: After Redis was away, every lease has ended at once: the living get this long to renew theirs.
GRACE_S: Final = 2 * ROUND_S
#: What one script returns at most, or one message more, while Redis serves nothing else: of ordinary messages a hundred
#: take a few milliseconds, and of the worst that a stranger can write a megabyte takes a tenth of a second to read.
RECLAIMED: Final = 100
RECLAIMED_BYTES: Final = 1024 * 1024
#: A job that no worker died of in this time is above suspicion, should its suspicion not have been lifted before.
SUSPICION_S: Final = 86_400


class Lease:
    """Renews this worker's lease, and ends the affairs of dead ones.

    Args:
        client: a redis client on the broker's database, with timeouts well below the lease.
        keys: names, this worker's among them.
        unhealthy_reason: what is stuck in this worker; None while it may keep its jobs.
        warning: what may become a unhealthy_reason; the lease says it to whoever looks.
        on_stuck: called with a unhealthy_reason that has lasted for a whole round.
        on_broker_away: called after each round in which the broker did not answer.
    """

    def __init__(
        self,
        client: Any,
        keys: DeliveryKeys,
        *,
        unhealthy_reason: Callable[[], str | None],
        warning: Callable[[], str | None],
        on_stuck: Callable[[str], None],
        on_broker_away: Callable[[], None],
    ) -> None:
        self._client = client
        self._keys = keys
        self._where = f"{socket.gethostname()}/{os.getpid()}"
        self._unhealthy_reason = unhealthy_reason
        self._warning = warning
        self._on_stuck = on_stuck
        self._on_broker_away = on_broker_away
        self._was_stuck = False
        self._orphans: set[str] = set()
        #: Delivery tags of the messages that this process knows to be in its hands, or that Redis may be handing to it,
        #: of which it knows the beginning; None while it cannot tell.
        self.tags_in_hand: Callable[[], set[str] | None] = lambda: None
        #: Called before what is held is returned: the messages must not wake this process.
        self.stop_waiting: Callable[[], None] = lambda: None
        self._end = threading.Event()
        self._reclaim_from = 0.0
        self._failing = True
        self._thread = threading.Thread(target=self._serve, name="lease", daemon=True)

    def start(self) -> None:
        """Take the lease, then keep it from a thread of its own."""
        self.round()
        self._thread.start()

    def leave(self) -> None:
        """Give up the lease and return what is still held, blaming nobody. Afterwards nothing is ours any more."""
        self._end.set()
        try:
            self.stop_waiting()
            self._reclaim(self._keys.worker, "leaving")
        except Exception as error:  # its peers will do it once the lease has ended
            logger.warning("could not return messages: %s; others will take them over", type(error).__name__)

    def abandon(self) -> None:
        """Return what is held like the jobs of a dead worker, which this one is about to be."""
        self._end.set()
        self.stop_waiting()
        self._reclaim(self._keys.worker, "gone")

    def _serve(self) -> None:
        while not self._end.wait(ROUND_S):
            self.round()

    def round(self) -> None:
        """Renew the lease, and look after others where it is this worker's turn."""
        unhealthy_reason = self._unhealthy_reason()
        if unhealthy_reason and self._was_stuck:
            self._on_stuck(unhealthy_reason)
        self._was_stuck = unhealthy_reason is not None
        try:
            if unhealthy_reason:  # said, but the lease ends all the same
                self._client.eval(UPDATE_LEASE, 1, self._keys.lease, self._state())
            else:
                self._renew()
                self._return_orphans()
            if not self._end.is_set() and time.monotonic() >= self._reclaim_from:
                self._look_after_others()
        except Exception as error:  # the broker is away: every lease ends, and this thread must go on
            if not self._failing:
                logger.warning("cannot renew the lease: %s", type(error).__name__)
            self._failing = True
            self._on_broker_away()

    def _renew(self) -> None:
        lease_ms = int(LEASE_S * 1000)
        self._client.eval(RENEW, 2, self._keys.lease, self._keys.workers, self._state(), lease_ms, self._keys.worker)
        if self._failing:
            self._failing = False
            self._reclaim_from = time.monotonic() + GRACE_S
            for name in filter(is_known_dead, self._others()):
                self._reclaim(name, "gone")

    def _state(self) -> str:
        return f"{self._where}: {warning}" if (warning := self._warning()) else self._where

    def _return_orphans(self) -> None:
        """Return what is recorded as ours, and is not in our hands for a whole round.

        A connection broke: before the reply that brought the message, or after the job and before its acknowledgement.
        """
        if (known := self.tags_in_hand()) is None:
            self._orphans = set()
            return
        tags = {tag.decode() for tag in self._client.hkeys(self._keys.in_flight)}
        orphans = {tag for tag in tags - known if beginning_of(tag) not in known}
        for tag in orphans & self._orphans:
            give_back(self._client, self._keys, tag)
            logger.info("a message whose delivery or acknowledgement got lost is back in its queue")
        self._orphans = orphans

    def _look_after_others(self) -> None:
        """One worker a round looks at the leases of all, and at the messages that were put aside.

        What that costs grows with the workers, not their square.
        """
        if not self._client.eval(ELECT, 1, self._keys.reclaim_turn, self._keys.worker, int(ROUND_S * 800), "once"):
            return
        names = (self._keys.postponed, *self._keys.put_back)
        while self._client.eval(RESUME, len(names), *names, time.time(), *put_back_arguments()):
            pass
        others = self._others()
        with self._client.pipeline(transaction=False) as pipe:
            for name in others:
                pipe.exists(self._keys.of(name).lease)
            alive = pipe.execute()
        for name, lives in zip(others, alive, strict=True):
            if is_known_dead(name):
                self._reclaim(name, "gone")
            elif not lives:
                self._reclaim(name, "dead")

    def _others(self) -> list[str]:
        names = set()
        for name in self._client.smembers(self._keys.workers):
            try:
                names.add(name.decode())
            except UnicodeDecodeError:  # a stranger's: no worker has such a name
                self._client.srem(self._keys.workers, name)
        return sorted(names - {self._keys.worker})

    def _reclaim(self, worker: str, how: str) -> None:
        keys = self._keys.of(worker)
        names = (keys.in_flight, *keys.put_back, keys.lease, keys.workers, keys.alone, keys.suspects)
        options = (worker, how, int(SUSPICION_S), *put_back_arguments(), RECLAIMED, RECLAIMED_BYTES)
        returned, left = 0, 1
        while left:
            moved, left = self._client.eval(RECLAIM, len(names), *names, *options)
            returned += max(0, moved)
        if returned > 0 and how != "leaving":
            logger.warning("a worker has died: %d jobs that it held are back in their queues", returned)
        elif returned > 0:
            logger.info("%d jobs are back in their queues", returned)
