"""Where the messages of jobs are, as one moment of the broker shows it: by what clients and workers note of each.

A client notes a job's place when it queues it, a worker who has the message in hand; both in the same step in which
they move it (`producer.contract.names`). So a job that is neither waiting nor in hand nor answered is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, Final, Self

from producer.contract import (
    QUEUES,
    claim_key,
    counts_what_it_takes,
    in_flight_key,
    in_hand_key,
    mixed_key,
    place_key,
    postponed_key,
    queue_name,
    rung_name,
    step_names,
    taken_name,
    workers_key,
)
from producer.operations.exchanges import Command, Operation, Together

#: Stands in a place instead of the number once a client has seen that the message is lost. Without it the job would be
#: said to be queued again as soon as others wait whose numbers a stranger's purge has set back.
LOST: Final = "lost"

#: A claim and the place beside it are given the same life in one step. Where they differ by more than clocks round, a
#: client or worker of an older version has changed the claim alone, and the place is of an earlier message.
SAME_LIFE_MS: Final = 1_500


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message waits, or waited: it has been taken once its queue's counter has reached the number."""

    queue: str
    number: int
    life: str

    @classmethod
    def read(cls, value: bytes | None) -> Self | None:
        """What stands in a place key; None where nothing does that a client writes."""
        parts = (value or b"").decode(errors="replace").split(" ")
        if len(parts) != 3 or parts[0] not in QUEUES or not _is_whole(parts[1]):
            return None
        return cls(parts[0], int(parts[1]), parts[2])


@dataclass(frozen=True, slots=True)
class JobTraces:
    """What the broker holds of one job.

    Attributes:
        claim, place: as they stand.
        hand: what `in_hand_key` says of it.
        is_stray: whether the place is of an earlier message.
    """

    claim: bytes | None
    place: bytes | None
    hand: bytes | None
    is_stray: bool = False

    @property
    def as_seen(self) -> tuple[bytes, bytes]:
        """Claim and place for a script that changes them only as long as they stand so; empty where there is none."""
        return self.claim or b"", self.place or b""

    @property
    def life(self) -> str:
        """By which the message is told from others of the same id; empty where that is not known."""
        parts = (self.place or b"").decode(errors="replace").split(" ")
        return parts[2] if len(parts) == 3 else ""

    @property
    def is_lost(self) -> bool:
        """Whether a client has seen already that the message is lost."""
        return (self.place or b"").split(b" ")[1:2] == [LOST.encode()]

    @property
    def is_held(self) -> bool:
        """Whether a worker has the message, or has put it aside."""
        return self.hand is not None and not self.hand.startswith(b"returned ")

    @property
    def places(self) -> tuple[Place, ...]:
        """Where the message may wait: where it was put back, or where it was queued.

        Either may be of an earlier message of the same id, which was taken: it waits if one of the two was not.
        """
        if self.is_lost:
            return ()
        hand = (self.hand or b"").removeprefix(b"returned ") + b" returned"
        found = (Place.read(hand), None if self.is_stray else Place.read(self.place))
        return tuple(place for place in found if place is not None)


@dataclass(frozen=True, slots=True)
class QueuePosition:
    """One queue: how many messages were taken from it, how many wait."""

    taken: int
    waiting: int

    def ahead(self, place: Place) -> int | None:
        """How many messages are before the one of this place; None once it has been taken, or the queue is empty."""
        if place.number <= self.taken or not self.waiting:
            return None
        return min(place.number - self.taken, self.waiting) - 1


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The broker at one moment.

    Attributes:
        traces: by job id.
        lines: by a queue's short name.
        is_mixed: whether workers were there lately that note nothing.
    """

    traces: dict[str, JobTraces]
    lines: dict[str, QueuePosition]
    is_mixed: bool

    def ahead(self, job_id: str) -> int | None:
        """How many messages are before a job's; None where it does not wait."""
        found = (self.lines[place.queue].ahead(place) for place in self.traces[job_id].places)
        return next((ahead for ahead in found if ahead is not None), None)

    def is_beyond(self, job_id: str) -> bool:
        """Whether a job's number is one that its queue has not reached: uncounted messages were removed."""
        lines = self.lines
        return not self.is_mixed and all(
            place.number > lines[place.queue].taken + lines[place.queue].waiting for place in self.traces[job_id].places
        )


@dataclass(frozen=True, slots=True)
class ThoroughSnapshot:
    """As `Snapshot`, and what clients and workers of an older version may hide.

    Attributes:
        in_steps: queues of which messages wait in a list of a priority.
        may_be_held: whether a worker that notes nothing holds anything, or may have put something aside.
    """

    look: Snapshot
    in_steps: frozenset[str]
    may_be_held: bool

    def may_be_somewhere(self, job_id: str, *, has_begun: bool) -> bool:
        """Whether the message may exist, for a job that `Snapshot` does not find; False is certain.

        Args:
            has_begun: whether a worker has said so.
        """
        traces = self.look.traces[job_id]
        if traces.is_lost:
            return False
        queues = {place.queue for place in traces.places} or set(QUEUES)
        if self.look.is_mixed:
            return self.may_be_held or self._anything_waits(queues)
        if traces.places or has_begun:
            return False  # each worker notes what it takes, and what it puts back
        return traces.claim is not None and self._anything_waits(queues)

    def _anything_waits(self, queues: Iterable[str]) -> bool:
        return any(self.look.lines[name].waiting or name in self.in_steps for name in queues)


def look(prefix: str, job_ids: Sequence[str]) -> Operation[Snapshot]:
    """Look at some jobs; at most a few hundred, since Redis serves no other client meanwhile."""
    return _look_in(job_ids, (yield Together("broker", _commands(prefix, job_ids))))


def look_closely(prefix: str, lives: Mapping[str, str]) -> Operation[ThoroughSnapshot]:
    """Look at jobs that a first look did not find.

    Args:
        lives: of each job's message, as its place said then; empty where that is not known. An id that was freed and
            sent again has two messages for a moment, and workers note each under its life, too.
    """
    job_ids = tuple(lives)
    steps = tuple(("EXISTS", *step_names(queue_name(prefix, queue))) for queue in QUEUES)
    ages = tuple(("PTTL", key) for job_id in job_ids for key in (claim_key(prefix, job_id), place_key(prefix, job_id)))
    first = _commands(prefix, job_ids, [f"{job_id} {life}" for job_id, life in lives.items()])
    members: Command = ("SMEMBERS", workers_key(prefix))
    old = _that_note_nothing((yield Together("broker", (members,)))[0])
    while True:
        held = tuple(("HLEN", in_flight_key(prefix, worker)) for worker in old)
        postponed: Command = ("ZCARD", postponed_key(prefix))
        replies = yield Together("broker", (*first, members, postponed, *steps, *ages, *held))
        seen, rest = _look_in(job_ids, replies[: len(first)]), replies[len(first) :]
        known, old = old, _that_note_nothing(rest[0])
        if known == old:
            break
    lives_ms = rest[2 + len(steps) :][: len(ages)]
    traces = {
        job_id: replace(found, is_stray=abs(claim_ms - place_ms) > SAME_LIFE_MS)
        for (job_id, found), claim_ms, place_ms in zip(seen.traces.items(), lives_ms[::2], lives_ms[1::2], strict=True)
    }
    is_mixed = seen.is_mixed or bool(old)
    return ThoroughSnapshot(
        Snapshot(traces, seen.lines, is_mixed),
        in_steps=frozenset(queue for queue, count in zip(QUEUES, rest[2:], strict=False) if count),
        may_be_held=is_mixed and bool(rest[1] or any(rest[2 + len(steps) + len(ages) :])),
    )


def _commands(prefix: str, job_ids: Sequence[str], with_lives: Sequence[str] = ()) -> tuple[Command, ...]:
    queues = [queue_name(prefix, queue) for queue in QUEUES]
    keys = [key for job_id in job_ids for key in (claim_key(prefix, job_id), place_key(prefix, job_id))]
    return (
        ("MGET", *keys, *map(taken_name, queues)),
        ("HMGET", in_hand_key(prefix), *job_ids, *with_lives),
        *(("LLEN", name) for queue in queues for name in (queue, rung_name(queue))),
        ("EXISTS", mixed_key(prefix)),
    )


def _look_in(job_ids: Sequence[str], replies: Sequence[Any]) -> Snapshot:
    values, hands, *lengths, mixed = replies
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
            queue: QueuePosition(_number(taken), length + rung)
            for queue, taken, length, rung in zip(QUEUES, counters, lengths[::2], lengths[1::2], strict=True)
        },
        bool(mixed),
    )


def _that_note_nothing(workers: Any) -> list[str]:
    """Those of older versions."""
    names = sorted(bytes(worker).decode(errors="replace") for worker in workers or ())
    return [name for name in names if not counts_what_it_takes(name)]


def _number(value: bytes | None) -> int:
    text = (value or b"").decode(errors="replace")
    return int(text) if _is_whole(text) else 0


def _is_whole(text: str) -> bool:
    """Of a size that Redis counts to; a counter is below 0 once something was put back that no worker had counted."""
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 20
