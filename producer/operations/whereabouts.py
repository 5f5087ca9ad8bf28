"""Locate the messages of jobs in the broker from the records of clients and workers, in one transaction.

A client records where a message waits when it queues it, and a worker records which messages it holds. The script that
moves a message also updates these records (`producer.contract.names`), so a job that is neither waiting nor held nor
answered is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from producer.contract import names
from producer.contract.names import QUEUES
from producer.operations.exchanges import Command, Operation, Together
from producer.operations.traces import JobTraces, Location, counter_of, is_stray


@dataclass(frozen=True, slots=True)
class QueuePosition:
    """The numbers of messages that workers have taken from one queue and that wait in it."""

    taken: int
    waiting: int

    def ahead(self, location: Location) -> int | None:
        """Return how many messages are ahead of this location; None if the message was taken or the queue is empty."""
        if location.number <= self.taken or not self.waiting:
            return None
        return min(location.number - self.taken, self.waiting) - 1


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The broker's records at one moment.

    Attributes:
        traces: the records of each job by its id.
        queues: the numbers of each queue by its short name.
        now_s: the broker's time, in seconds since the epoch.
        is_mixed: whether workers of an older version, which do not record what they hold, ran within the last day.
        hides_held: whether another program overwrote the records of what workers hold.
    """

    traces: dict[str, JobTraces]
    queues: dict[str, QueuePosition]
    now_s: int
    is_mixed: bool
    hides_held: bool = False

    def ahead(self, job_id: str) -> int | None:
        """Return how many messages are ahead of a job's message, or None if the job does not wait."""
        found = self._place(job_id)
        return None if found is None else found[1]

    def waits_in(self, job_id: str) -> str | None:
        """Return the short name of the queue in which a job's message waits, or None if the job does not wait."""
        found = self._place(job_id)
        return None if found is None else found[0]

    def _place(self, job_id: str) -> tuple[str, int] | None:
        """Return a waiting job's queue, and how many messages are ahead of the job's message."""
        for location in self.traces[job_id].locations:
            if (ahead := self.queues[location.queue].ahead(location)) is not None:
                return location.queue, ahead
        return None

    def is_expired(self, job_id: str) -> bool:
        """Return whether a job has expired and no worker runs it; False if the broker's records cannot tell."""
        return not (self.is_mixed or self.hides_held) and self.traces[job_id].is_expired(self.now_s)

    def is_beyond(self, job_id: str) -> bool:
        """Return whether a job's number is larger than that of its queue's last message.

        Another program has then removed messages from the queue without counting them.
        """
        queues = self.queues
        return not self.is_mixed and all(
            location.number > queues[location.queue].taken + queues[location.queue].waiting
            for location in self.traces[job_id].locations
        )


@dataclass(frozen=True, slots=True)
class ThoroughSnapshot:
    """A `Snapshot`, and where else clients and workers of an older version may have put messages.

    Attributes:
        in_steps: the queues with messages in the list of a priority.
        may_be_held: whether a worker that does not record what it holds has a message, or may have postponed one.
    """

    snapshot: Snapshot
    in_steps: frozenset[str]
    may_be_held: bool

    def may_exist(self, job_id: str, *, has_begun: bool) -> bool:
        """Return False if the message of a job that is not in the snapshot certainly does not exist.

        Args:
            has_begun: whether a worker has stored that the job runs.
        """
        traces = self.snapshot.traces[job_id]
        if traces.is_lost:
            return False
        if self.snapshot.hides_held:
            return True
        queues = {location.queue for location in traces.locations} or set(QUEUES)
        if self.snapshot.is_mixed:
            return self.may_be_held or self._anything_waits(queues)
        if traces.locations or has_begun:
            return False  # every worker records the messages that it takes or requeues
        return traces.claim is not None and self._anything_waits(queues)

    def _anything_waits(self, queues: Iterable[str]) -> bool:
        return any(self.snapshot.queues[name].waiting or name in self.in_steps for name in queues)


def locate(prefix: str, job_ids: Sequence[str]) -> Operation[Snapshot]:
    """Locate jobs, at most a few hundred in one call: Redis serves no other client during the transaction."""
    return _snapshot(job_ids, (yield Together("broker", _commands(prefix, job_ids))))


def locate_missing(prefix: str, lives: Mapping[str, str]) -> Operation[ThoroughSnapshot]:
    """Locate jobs that `locate` did not find.

    Args:
        lives: the life of each job's message, from the place key that `locate` read; empty if unknown. An id that was
            freed and submitted again has two messages for a short time, which workers also record by their lives.
    """
    job_ids = tuple(lives)
    steps = tuple(("EXISTS", *names.step_names(names.queue_name(prefix, queue))) for queue in QUEUES)
    ages = tuple(("PTTL", key) for job_id in job_ids for key in names.claim_and_place(prefix, job_id))
    first = _commands(prefix, job_ids, [f"{job_id} {life}" for job_id, life in lives.items()])
    members: Command = ("SMEMBERS", names.workers_key(prefix))
    old = _of_older_versions((yield Together("broker", (members,)))[0])
    while True:
        held = tuple(("HLEN", names.in_flight_key(prefix, worker)) for worker in old)
        postponed: Command = ("ZCARD", names.postponed_key(prefix))
        replies = yield Together("broker", (*first, members, postponed, *steps, *ages, *held))
        seen, rest = _snapshot(job_ids, replies[: len(first)]), replies[len(first) :]
        known, old = old, _of_older_versions(rest[0])
        if known == old:
            break
    ttls_ms = rest[2 + len(steps) :][: len(ages)]
    traces = {
        job_id: replace(found, is_stray=is_stray(claim_ms, place_ms))
        for (job_id, found), claim_ms, place_ms in zip(seen.traces.items(), ttls_ms[::2], ttls_ms[1::2], strict=True)
    }
    is_mixed = seen.is_mixed or bool(old)
    return ThoroughSnapshot(
        replace(seen, traces=traces, is_mixed=is_mixed),
        in_steps=frozenset(queue for queue, count in zip(QUEUES, rest[2:], strict=False) if count),
        may_be_held=is_mixed and bool(rest[1] or any(rest[2 + len(steps) + len(ages) :])),
    )


def _commands(prefix: str, job_ids: Sequence[str], with_lives: Sequence[str] = ()) -> tuple[Command, ...]:
    queues = [names.queue_name(prefix, queue) for queue in QUEUES]
    keys = [key for job_id in job_ids for key in names.claim_and_place(prefix, job_id)]
    return (
        ("MGET", *keys, *map(names.taken_name, queues)),
        ("HMGET", names.in_hand_key(prefix), *job_ids, *with_lives),
        *(("LLEN", name) for queue in queues for name in (queue, names.rung_name(queue))),
        ("EXISTS", names.mixed_key(prefix)),
        ("TIME",),
    )


def _snapshot(job_ids: Sequence[str], replies: Sequence[Any]) -> Snapshot:
    values, hands, *lengths, mixed, time = replies
    hides_held = hands is None  # the key holds another type
    hands = hands or [None] * len(job_ids)
    hands = [exact or hand for hand, exact in zip_longest(hands[: len(job_ids)], hands[len(job_ids) :])]
    lengths = [length or 0 for length in lengths]
    claims, places, counters = values[: 2 * len(job_ids) : 2], values[1 : 2 * len(job_ids) : 2], values[-len(QUEUES) :]
    return Snapshot(
        {
            job_id: JobTraces(claim, place, hand)
            for job_id, claim, place, hand in zip(job_ids, claims, places, hands, strict=True)
        },
        {
            queue: QueuePosition(counter_of(taken), length + rung)
            for queue, taken, length, rung in zip(QUEUES, counters, lengths[::2], lengths[1::2], strict=True)
        },
        int(time[0]),
        bool(mixed),
        hides_held,
    )


def _of_older_versions(workers: Any) -> list[str]:
    """Return the names of the workers of older versions, which do not record what they hold."""
    known = sorted(bytes(worker).decode(errors="replace") for worker in workers or ())
    return [name for name in known if not names.counts_what_it_takes(name)]
