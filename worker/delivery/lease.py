"""Renews this worker's lease, and requeues the messages of workers whose lease has expired.

The lease is a key that expires. A thread renews it, but only while the worker is healthy: a stuck process must not keep
its jobs. When a worker's lease has expired, another worker moves its messages back to the front of their queues.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, Literal

from producer.contract.lease_value import LeaseValue
from producer.contract.names import QUEUES, queue_name
from worker.delivery.broker_clock import BrokerClock
from worker.delivery.duties import Duties
from worker.delivery.moves import give_back, reclaim, resume
from worker.delivery.names import DeliveryKeys, beginning_of, is_known_dead
from worker.delivery.outages import describe
from worker.delivery.taken import elapsed_s
from worker.delivery.times import Times
from worker.delivery.upkeep_scripts import ELECT, RENEW, UPDATE_LEASE

logger = logging.getLogger(__name__)

#: Each of the three duties that requeue messages may use this share of a round, the interval between two renewals,
#: however many messages there are, so that the thread renews the lease in time. The next rounds continue.
DUTY_SHARE: Final = 0.2


class Lease:
    """Renews this worker's lease and reclaims the messages of dead workers, from a thread of its own.

    Args:
        client: a Redis client for the broker's database, with timeouts well below the lease.
        keys: the key names, including this worker's.
        unhealthy_reason: returns what is stuck in this worker, or None while the worker may keep its jobs.
        warning: returns what is or may become wrong, or None; the lease's value holds it for operators.
        on_stuck: called with the reason once the worker has been unhealthy for a whole round.
        on_broker_unreachable: called after each round in which the broker failed.
        times: the duration of a lease, and of a round, which is the interval between renewals.
        clock: records the time that Redis returns with each renewal.
    """

    def __init__(
        self,
        client: Any,
        keys: DeliveryKeys,
        *,
        unhealthy_reason: Callable[[], str | None],
        warning: Callable[[], str | None],
        on_stuck: Callable[[str], None],
        on_broker_unreachable: Callable[[], None],
        times: Times,
        clock: BrokerClock,
    ) -> None:
        self._client = client
        self._keys = keys
        self._where = f"{socket.gethostname()}/{os.getpid()}"
        self._unhealthy_reason = unhealthy_reason
        self._warning = warning
        self._on_stuck = on_stuck
        self._on_broker_unreachable = on_broker_unreachable
        self._times = times
        self._clock = clock
        self._was_stuck = False
        #: Returns the names of the queues from which this process takes jobs; None while it cannot tell.
        self.queues: Callable[[], Collection[str] | None] = lambda: None
        self._orphans: set[str] = set()
        #: Returns the delivery tags of all messages that this process has in hand, plus the beginning of the tag of one
        #: that Redis may be delivering; None while the process cannot tell.
        self.tags_in_hand: Callable[[], set[str] | None] = lambda: None
        #: Called before messages are requeued, so that they do not wake this process.
        self.stop_waiting: Callable[[], None] = lambda: None
        self._end = threading.Event()
        self._reclaim_from = 0.0
        self._duties = Duties(client, keys)
        self._failing = True
        self._thread = threading.Thread(target=self._serve, name="lease", daemon=True)

    def start(self) -> None:
        """Acquire the lease, then renew it from a thread."""
        self.round()
        self._thread.start()

    def leave(self, how: Literal["leaving", "gone"] = "leaving") -> None:
        """Give up the lease and requeue all held messages.

        Args:
            how: ``gone`` if the end of this process counts as a death against its jobs; ``leaving`` if it does not.
        """
        self._end.set()
        try:
            self.stop_waiting()
            reclaim(self._client, self._keys, how)
        except Exception as error:  # other workers requeue the messages once the lease expires
            logger.warning("could not requeue messages: %s; other workers will take them over", describe(error))

    def _serve(self) -> None:
        while not self._end.wait(self._times.round_s):
            self.round()

    def round(self) -> None:
        """Renew the lease while this worker is healthy, and requeue messages whose delivery was lost.

        If this worker is elected for this round, also requeue postponed messages and the messages of dead workers.
        """
        unhealthy_reason = self._unhealthy_reason()
        if unhealthy_reason and self._was_stuck:
            self._on_stuck(unhealthy_reason)
        self._was_stuck = unhealthy_reason is not None
        duty = self._duties.duty
        try:
            if unhealthy_reason:  # the lease's value shows the reason, but the lease still expires
                self._client.eval(UPDATE_LEASE, 1, self._keys.lease, self._state())
            else:
                with duty("renew the lease"):
                    self._renew()
                if self._failing:
                    return
                with duty("requeue messages whose delivery was lost"):
                    self._requeue_orphans()
            if not self._end.is_set() and time.monotonic() >= self._reclaim_from and self._is_elected():
                with duty("requeue postponed messages"):
                    resume(self._client, self._keys, ends_at_s=self._ends_at_s())
                with duty("requeue the messages of dead workers"):
                    self._reclaim_from_the_dead()
        except Exception as error:  # the broker is unreachable, so all leases expire; this thread must keep running
            self._duties.report("renew the lease", describe(error))
            self._failing = True
            self._on_broker_unreachable()

    def _renew(self) -> None:
        lease_ms = int(self._times.lease_s * 1000)
        was_failing, self._failing = self._failing, True
        names, sent_s = (self._keys.lease, self._keys.workers), elapsed_s()
        told = self._client.eval(RENEW, len(names), *names, self._state(), lease_ms, self._keys.worker)
        self._clock.read(told, sent_s=sent_s)
        self._failing = False
        if was_failing:
            # After an outage of Redis, every lease may have expired: give live workers two rounds to renew theirs, and
            # reclaim at once only the messages of workers that are known to be dead.
            self._reclaim_from = time.monotonic() + 2 * self._times.round_s
            self._reclaim_all(dict.fromkeys(filter(is_known_dead, self._others()), "gone"))

    def _state(self) -> str:
        taken = self.queues()
        queues = None if taken is None else {queue for queue in QUEUES if queue_name(self._keys.prefix, queue) in taken}
        return str(LeaseValue(self._where, None if queues is None else frozenset(queues), self._warning() or ""))

    def _requeue_orphans(self) -> None:
        """Requeue messages that Redis records as ours but this process has not had in hand for a whole round.

        Such a message is left if the connection broke before the message, or before its acknowledgement, arrived.
        """
        if (known := self.tags_in_hand()) is None:
            self._orphans = set()
            return
        tags = {tag.decode() for tag in self._client.hkeys(self._keys.in_flight)}
        orphans = {tag for tag in tags - known if beginning_of(tag) not in known}
        ends_at_s = self._ends_at_s()
        for tag in orphans & self._orphans:
            give_back(self._client, self._keys, tag)
            logger.info("requeued a message whose delivery or acknowledgement was lost")
            if time.monotonic() >= ends_at_s:
                break
        self._orphans = orphans

    def _is_elected(self) -> bool:
        """Return whether this worker checks the leases of all others in this round.

        Only one worker checks them in a round, so the cost grows with the number of workers and not with its square.
        """
        turn_ms = int(self._times.round_s * 800)
        return bool(self._client.eval(ELECT, 1, self._keys.reclaim_turn, self._keys.worker, turn_ms, "once"))

    def _reclaim_from_the_dead(self) -> None:
        """Check all leases, and requeue the messages of each worker whose lease has expired."""
        others = self._others()
        with self._client.pipeline(transaction=False) as pipe:
            for name in others:
                pipe.exists(self._keys.of(name).lease)
            alive = pipe.execute()
        dead: dict[str, Literal["dead", "gone"]] = {}
        for name, lives in zip(others, alive, strict=True):
            if is_known_dead(name):
                dead[name] = "gone"
            elif not lives:
                dead[name] = "dead"
        self._reclaim_all(dead)

    def _others(self) -> list[str]:
        names = set()
        for name in self._client.smembers(self._keys.workers):
            try:
                names.add(name.decode())
            except UnicodeDecodeError:  # another program wrote this name, which no worker can have
                self._client.srem(self._keys.workers, name)
        return sorted(names - {self._keys.worker})

    def _reclaim_all(self, dead: Mapping[str, Literal["dead", "gone"]]) -> None:
        """Reclaim the messages of dead workers in random order, so that each worker's turn comes even if time is short.

        An error with one worker's messages is logged and does not keep the others' from being reclaimed.
        """
        ends_at_s = self._ends_at_s()
        for name in random.sample(list(dead), len(dead)):
            with self._duties.duty(f"requeue the messages of the dead worker {name}"):
                reclaim(self._client, self._keys.of(name), dead[name], ends_at_s=ends_at_s)
            if time.monotonic() >= ends_at_s:
                break

    def _ends_at_s(self) -> float:
        return time.monotonic() + DUTY_SHARE * self._times.round_s
