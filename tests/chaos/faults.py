"""Which faults happen when: drawn from a seed before the run begins."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What can be done to a part of the system."""

    KILL_WORKER = "kill -9 of a worker"
    TERMINATE_WORKER = "SIGTERM of a worker"
    FREEZE_WORKER = "SIGSTOP of a worker"
    CUT_WORKER = "worker cut off from Valkey"
    KILL_PRODUCER = "kill -9 of a producer"
    CUT_PRODUCER = "producer cut off from Valkey"
    RESTART_VALKEY = "clean restart of Valkey"


#: How often each is drawn, beside the others. A restart disturbs everybody at once, so it comes seldom.
WEIGHTS = {
    Kind.KILL_WORKER: 6,
    Kind.TERMINATE_WORKER: 4,
    Kind.FREEZE_WORKER: 4,
    Kind.CUT_WORKER: 4,
    Kind.KILL_PRODUCER: 3,
    Kind.CUT_PRODUCER: 3,
    Kind.RESTART_VALKEY: 1,
}
#: Shortest and longest; a lease of a few seconds runs out within some of them and not within others.
FREEZE_S = (3.0, 25.0)
CUT_S = (1.0, 12.0)
ABSENCE_S = (1.0, 5.0)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        at_s: seconds after the first job was submitted; later if there is nothing to do it to.
        length_s: until it is undone; 0 where a replacement starts instead.
        draw: in [0, 1), chooses among those to whom it may happen.
    """

    at_s: float
    kind: Kind
    length_s: float
    draw: float


def schedule(
    seed: int, faults: int, *, gap_s: float, max_freeze_s: float = FREEZE_S[1], among: Collection[Kind] = tuple(Kind)
) -> list[Fault]:
    """Faults about ``gap_s`` apart in the order in which they come; each kind is there if there are enough of them."""
    source = random.Random(seed)
    weights = {kind: weight for kind, weight in WEIGHTS.items() if kind in among}
    kinds = list(weights)
    kinds += source.choices(list(weights), list(weights.values()), k=max(0, faults - len(kinds)))
    source.shuffle(kinds)
    lengths_s = {
        Kind.FREEZE_WORKER: (FREEZE_S[0], max_freeze_s),
        Kind.CUT_WORKER: CUT_S,
        Kind.CUT_PRODUCER: CUT_S,
        Kind.RESTART_VALKEY: ABSENCE_S,
    }
    drawn: list[Fault] = []
    at_s = 0.0
    for kind in kinds[:faults]:
        at_s += gap_s * source.uniform(0.5, 1.5)
        drawn.append(Fault(at_s, kind, source.uniform(*lengths_s.get(kind, (0.0, 0.0))), source.random()))
    return drawn
