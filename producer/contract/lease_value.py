"""The value of a worker's lease: where the worker runs, the queues that it takes from, and its problem."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final, Self

from producer.contract.names import QUEUES, Queue

_TAKES: Final = " takes "
_NOTHING: Final = "nothing"
_PROBLEM: Final = ": "


@dataclass(frozen=True, slots=True)
class LeaseValue:
    """The value of a lease, ``<host>/<process id> takes high,default: <problem>``; the last two parts may be missing.

    Attributes:
        where: the worker's host and process id.
        queues: the queues from which the worker takes jobs; None if it cannot tell. Workers of an older version never
            can, and a later version may write something else.
        problem: what is wrong with the worker; empty if nothing is.
    """

    where: str
    queues: frozenset[Queue] | None = None
    problem: str = ""

    @classmethod
    def read(cls, value: bytes) -> Self:
        """Parse the value of a lease of any version."""
        head, _, problem = value.decode(errors="replace").partition(_PROBLEM)
        where, _, takes = head.partition(_TAKES)
        words = [] if takes == _NOTHING else takes.split(",")
        queues = frozenset(queue for queue in QUEUES if queue in words)
        return cls(where, queues if len(queues) == len(words) else None, problem)

    def __str__(self) -> str:
        """Return the value as Redis holds it."""
        takes = "" if self.queues is None else _TAKES + (",".join(_in_order(self.queues)) or _NOTHING)
        return f"{self.where}{takes}{self.problem and _PROBLEM}{self.problem}"


def unserved_queues(leases: Iterable[LeaseValue]) -> frozenset[Queue]:
    """Return the queues from which certainly none of the workers with these leases takes jobs."""
    unserved = frozenset(QUEUES)
    for lease in leases:
        unserved -= unserved if lease.queues is None else lease.queues
    return unserved


def _in_order(queues: Collection[Queue]) -> list[Queue]:
    return [queue for queue in QUEUES if queue in queues]
