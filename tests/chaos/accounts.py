"""Once a second, compares what the system reports of its jobs with what the harness knows.

A *hidden* job is accepted, has no answer, and is missing from the backlog. The client must report a job that a purge
or FLUSHALL destroyed as unknown, in time, to the job's waiter; it must never report another job as unknown.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import redis

from producer import BrokerUnavailable, Client
from producer.contract.names import QUEUES, claim_key, in_hand_key, place_key, queue_name, rung_name, taken_name
from tests.chaos.destruction import PREFIX, Destroyed
from tests.chaos.jobs import is_of_our_client, job, number_of
from tests.chaos.servers import Server
from tests.chaos.tally import Tally
from tests.chaos.waiters import Moment, Waiters
from tests.chaos.whereabouts import whereabouts

#: How far one thread's observations may lag behind another's.
SETTLE_S = 2.0
#: Within this time, counted while both servers work, a waiter must learn that its job was destroyed.
TELL_S = 60.0
#: For this many moments the harness searches Redis for the hidden jobs, which takes long.
FEW = 20


@dataclass(slots=True)
class Promise:
    """Destroyed jobs whose waiters must learn of it, and when that falls due, on the clock of undisturbed seconds."""

    destroyed: Destroyed
    open: set[str]
    due_from_s: float | None = None


@dataclass(frozen=True, slots=True)
class Hidden:
    """A moment at which the backlog counted fewer jobs than existed.

    Attributes:
        places: where the messages of the existing jobs were a moment later; see `whereabouts`.
    """

    at_s: float
    alive: int
    counted: int
    places: Counter[str]

    @property
    def jobs(self) -> int:
        """The least number of hidden jobs."""
        return self.alive - self.counted


class Accounts:
    """The main thread calls `tick` several times a second and `look` once a second.

    Attributes:
        looks: how often the backlog was counted.
        hidden: the moments at which it was too small.
        falsely_unknown: jobs that existed when a waiter was told that they are unknown, with what Redis held of them.
        not_told: destroyed jobs whose waiters did not learn of it in time.
        told: how many waiters learned that their job was destroyed.
        slowest_told_s: the longest that one of them waited for it, in undisturbed seconds after it fell due.
    """

    def __init__(self, broker: Server, results: Server, tally: Tally, waiters: Waiters) -> None:
        self.looks = 0
        self.hidden: list[Hidden] = []
        self.falsely_unknown: dict[str, str] = {}
        self.not_told: set[str] = set()
        self.told = 0
        self.slowest_told_s = 0.0
        self._broker = broker
        self._servers = (broker, results)
        self._tally = tally
        self._waiters = waiters
        self._client = Client(broker.url, results.url)
        self._observer = broker.connect()
        self._promises: list[Promise] = []
        #: The undisturbed seconds so far; `_looked_at_s` is when they were last counted.
        self._clock_s = 0.0
        self._looked_at_s = 0.0

    def note_destroyed(self, found: Iterable[Destroyed], now_s: float) -> None:
        """Record jobs that a purge or FLUSHALL has just destroyed."""
        for destroyed in found:
            self._tally.note_destroyed(destroyed, now_s)
            gone = destroyed.job_ids & self._tally.gone.keys()
            ours = {job_id for job_id in gone if is_of_our_client(job_id)}
            self._waiters.send_plainly(gone - ours)
            is_due = destroyed.queue is None
            self._promises.append(Promise(destroyed, ours, self._clock_s if is_due else None))
            if is_due and not destroyed.is_answer:  # FLUSHALL destroyed claims and counters, too
                for promise in self._promises:
                    promise.due_from_s = promise.due_from_s if promise.due_from_s is not None else self._clock_s

    def tick(self) -> None:
        """Check what waiters were told, and have their jobs sent again."""
        waiters, tally = self._waiters, self._tally
        while waiters.sent_again:
            sent = waiters.sent_again.popleft()
            tally.sent_again(sent.job_id, sent.at_s)
        while waiters.told and waiters.told[0].at_s < time.monotonic() - SETTLE_S:
            told = waiters.told.popleft()
            if self._was_gone(told):
                self._keep(told.job_id)
            else:
                self.falsely_unknown[told.job_id] = self._traces(told.job_id)
            waiters.send_again(told.job_id)

    def look(self, now_s: float, *, is_quiet: bool) -> None:
        """Count the backlog, and find the promises that fell due or were broken."""
        if not any(server.is_disturbed for server in self._servers):
            self._clock_s += now_s - self._looked_at_s
        self._looked_at_s = now_s
        self._waiters.follow(job_id for job_id in self._tally.gone if is_of_our_client(job_id))
        if not self._broker.is_reachable:
            return
        try:
            alive = self._tally.alive
            counted = self._client.backlog().total
            if self._tally.poll(now_s):  # otherwise a job may have an answer that the harness does not know yet
                self._count(now_s, alive & self._tally.alive, counted)
            passed = self._passed(is_quiet=is_quiet)
        except (BrokerUnavailable, redis.RedisError):
            return
        for promise in self._promises:
            queue = promise.destroyed.queue
            if promise.due_from_s is None and queue and passed[queue] >= promise.destroyed.last:
                promise.due_from_s = self._clock_s
            promise.open &= self._tally.gone.keys()
            if promise.due_from_s is not None and self._clock_s - promise.due_from_s > TELL_S:
                self.not_told |= promise.open
                promise.open.clear()
        self._promises = [promise for promise in self._promises if promise.open]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        self._observer.close()

    def _count(self, now_s: float, alive: set[str], counted: int) -> None:
        self.looks += 1
        if len(alive) > counted:
            places = whereabouts(self._observer, alive) if len(self.hidden) < FEW else Counter()
            self.hidden.append(Hidden(now_s, len(alive), counted, places))

    def _was_gone(self, told: Moment) -> bool:
        return told.job_id in self._tally.gone or self._tally.gone_until_s.get(told.job_id, 0.0) > told.at_s - SETTLE_S

    def _keep(self, job_id: str) -> None:
        self.told += 1
        for promise in self._promises:
            if job_id in promise.open:
                promise.open.discard(job_id)
                due_from_s = self._clock_s if promise.due_from_s is None else promise.due_from_s
                self.slowest_told_s = max(self.slowest_told_s, self._clock_s - due_from_s)

    def _passed(self, *, is_quiet: bool) -> dict[str, float]:
        """Return how many messages were taken from each queue; infinity if it is empty and no more will come."""
        passed: dict[str, float] = {}
        for queue in QUEUES:
            name = queue_name(PREFIX, queue)
            passed[queue] = int(self._observer.get(taken_name(name)) or 0)
            if is_quiet and not self._observer.exists(name, rung_name(name)):
                passed[queue] = float("inf")
        return passed

    def _traces(self, job_id: str) -> str:
        """Describe what Redis holds of a job."""
        queue = queue_name(PREFIX, job(0, number_of(job_id)).queue)
        try:
            values = self._observer.mget(claim_key(PREFIX, job_id), place_key(PREFIX, job_id), taken_name(queue))
            claim, place, taken = values
            hand = self._observer.hget(in_hand_key(PREFIX), job_id)
            waiting = (self._observer.llen(queue), self._observer.llen(rung_name(queue)))
        except redis.RedisError as error:
            return type(error).__name__
        answered = "answered" if self._tally.is_answered(job_id) else "no answer"
        return (
            f"claimed {claim is not None}, place {place!r}, taken {taken!r}, hand {hand!r}, {waiting} wait, {answered}"
        )
