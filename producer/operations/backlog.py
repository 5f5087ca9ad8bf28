"""How much was accepted and is not answered, as one moment of the broker shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from producer.contract import (
    QUEUES,
    Queue,
    in_flight_key,
    lease_key,
    postponed_key,
    queue_name,
    rung_name,
    step_names,
    workers_key,
)
from producer.operations.exchanges import Command, Operation, Together


@dataclass(frozen=True, slots=True)
class Backlog:
    """Messages that were accepted and are not answered, each counted once. Of a bulk message its images are one.

    Attributes:
        waiting: in each queue, whatever their priority.
        postponed: put aside by a worker until their ``eta``.
        in_hand: held by workers that live.
        in_dead_hands: held by workers that died, until another worker returns them to their queues.
        workers: how many live, by their leases.
    """

    waiting: Mapping[Queue, int]
    postponed: int
    in_hand: int
    in_dead_hands: int
    workers: int

    @property
    def total(self) -> int:
        """All of them: while this is not 0, there is work for a worker."""
        return sum(self.waiting.values()) + self.postponed + self.in_hand + self.in_dead_hands

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "waiting": dict(self.waiting),
            "postponed": self.postponed,
            "in_hand": self.in_hand,
            "in_dead_hands": self.in_dead_hands,
            "workers": self.workers,
            "total": self.total,
        }


def backlog(prefix: str) -> Operation[Backlog]:
    """Count it in one step, so that no message is missed, or counted twice, while it moves."""
    members: Command = ("SMEMBERS", workers_key(prefix))
    postponed: Command = ("ZCARD", postponed_key(prefix))
    lengths = _lengths(prefix)
    workers = sorted((yield Together("broker", (members,)))[0] or ())
    while True:
        names = [bytes(worker).decode(errors="replace") for worker in workers]
        hands: list[Command] = []
        for name in names:
            hands += (("MGET", lease_key(prefix, name)), ("HLEN", in_flight_key(prefix, name)))
        replies = yield Together("broker", (members, postponed, *lengths, *hands))
        known, workers = workers, sorted(replies[0] or ())
        if known == workers:
            break
    leases = [found[0] is not None for found in replies[2 + len(lengths) :: 2]]
    held = [count or 0 for count in replies[3 + len(lengths) :: 2]]
    return Backlog(
        _by_queue(replies[2:][: len(lengths)]),
        postponed=replies[1] or 0,
        in_hand=sum(count for count, lives in zip(held, leases, strict=True) if lives),
        in_dead_hands=sum(count for count, lives in zip(held, leases, strict=True) if not lives),
        workers=sum(leases),
    )


def queue_depths(prefix: str) -> Operation[dict[Queue, int]]:
    """The number of waiting messages of each queue."""
    return _by_queue((yield Together("broker", _lengths(prefix))))


def _lengths(prefix: str) -> tuple[Command, ...]:
    return tuple(("LLEN", name) for queue in QUEUES for name in _lists(prefix, queue))


def _by_queue(lengths: list[int | None]) -> dict[Queue, int]:
    each = len(lengths) // len(QUEUES)
    return {queue: sum(filter(None, lengths[number * each :][:each])) for number, queue in enumerate(QUEUES)}


def _lists(prefix: str, queue: Queue) -> tuple[str, ...]:
    name = queue_name(prefix, queue)
    return (name, rung_name(name), *step_names(name))
