"""Count the messages that are accepted and unanswered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from producer.contract import names
from producer.contract.names import QUEUES, Queue
from producer.operations.exchanges import Command, Operation, Together


@dataclass(frozen=True, slots=True)
class Backlog:
    """The numbers of messages that are accepted and unanswered; a bulk message counts as one.

    Attributes:
        waiting: how many messages wait in each queue, of all priorities.
        postponed: how many messages workers have put aside until a later time, such as their ``eta`` or next retry.
        in_hand: how many messages live workers hold.
        in_dead_hands: how many messages of dead workers no other worker has requeued yet.
        workers: the number of live workers, which have unexpired leases.
    """

    waiting: Mapping[Queue, int]
    postponed: int
    in_hand: int
    in_dead_hands: int
    workers: int

    @property
    def total(self) -> int:
        """The number of all these messages; until it is 0, workers have work to do."""
        return sum(self.waiting.values()) + self.postponed + self.in_hand + self.in_dead_hands

    def to_json(self) -> dict[str, Any]:
        """Return the numbers in the form that `nameshot doctor --json` prints."""
        return {**asdict(self), "total": self.total}


def backlog(prefix: str) -> Operation[Backlog]:
    """Count the backlog in one transaction, so that a moving message is neither missed nor counted twice."""
    members: Command = ("SMEMBERS", names.workers_key(prefix))
    postponed: Command = ("ZCARD", names.postponed_key(prefix))
    lengths = _lengths(prefix)
    workers = sorted((yield Together("broker", (members,)))[0] or ())
    while True:
        hands: list[Command] = []
        for worker in workers:
            name = bytes(worker).decode(errors="replace")
            hands += (("MGET", names.lease_key(prefix, name)), ("HLEN", names.in_flight_key(prefix, name)))
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
    """Return the number of waiting messages in each queue."""
    return _by_queue((yield Together("broker", _lengths(prefix))))


def _lengths(prefix: str) -> tuple[Command, ...]:
    return tuple(("LLEN", name) for queue in QUEUES for name in names.waiting_names(names.queue_name(prefix, queue)))


def _by_queue(lengths: list[int | None]) -> dict[Queue, int]:
    each = len(lengths) // len(QUEUES)
    return {queue: sum(filter(None, lengths[number * each :][:each])) for number, queue in enumerate(QUEUES)}
