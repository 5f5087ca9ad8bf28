"""Which faults happen and when; the schedule follows from a seed."""

from __future__ import annotations

import math
import random
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """A kind of fault of a part of the system."""

    KILL_WORKER = "kill -9 of a worker"
    KILL_LADEN_WORKER = "kill -9 of the worker with most in hand"
    KILL_ALL_WORKERS = "kill -9 of all workers, with none for longer than a lease"
    TERMINATE_WORKER = "SIGTERM of a worker"
    FREEZE_WORKER = "SIGSTOP of a worker"
    CUT_WORKER = "worker cut off from Valkey"
    KILL_PRODUCER = "kill -9 of a producer"
    CUT_PRODUCER = "producer cut off from Valkey"
    RESTART_BROKER = "only the broker's Valkey down"
    RESTART_RESULTS = "only the results' Valkey down"
    FREEZE_BROKER = "SIGSTOP of the broker's Valkey"
    FREEZE_RESULTS = "SIGSTOP of the results' Valkey"
    FILL_BROKER = "broker's Valkey full"
    FILL_RESULTS = "results' Valkey full"
    REFUSE_BROKER = "broker's Valkey refuses commands"
    REFUSE_RESULTS = "results' Valkey refuses commands"
    STORM_BROKER = "broker's Valkey ends all connections, again and again"
    STORM_RESULTS = "results' Valkey ends all connections, again and again"
    PURGE = "celery purge while messages wait"
    FLUSH_BROKER = "FLUSHALL of the broker's Valkey"
    FLUSH_RESULTS = "FLUSHALL of the results' Valkey"
    STALL_BULK = "a download of each bulk message stalls"


@dataclass(frozen=True, slots=True)
class Habit:
    """The relative frequency of a kind of fault, and how long the fault lasts, in seconds."""

    weight: int
    shortest_s: float = 0.0
    longest_s: float = 0.0


#: Some of these times exceed a lease of nine seconds, others do not. A download that stalls for more than seven seconds
#: may fail, so no stall lasts longer. Faults that disturb all processes are rare.
HABITS = {
    Kind.KILL_WORKER: Habit(12),
    Kind.KILL_LADEN_WORKER: Habit(5, 3.0, 6.0),
    Kind.KILL_ALL_WORKERS: Habit(2, 2.0, 4.0),
    Kind.TERMINATE_WORKER: Habit(8),
    Kind.FREEZE_WORKER: Habit(8, 3.0, 25.0),
    Kind.CUT_WORKER: Habit(8, 1.0, 12.0),
    Kind.KILL_PRODUCER: Habit(6),
    Kind.CUT_PRODUCER: Habit(6, 1.0, 12.0),
    Kind.RESTART_BROKER: Habit(2, 1.0, 8.0),
    Kind.RESTART_RESULTS: Habit(4, 1.0, 20.0),
    Kind.FREEZE_BROKER: Habit(2, 1.0, 12.0),
    Kind.FREEZE_RESULTS: Habit(3, 1.0, 12.0),
    Kind.FILL_BROKER: Habit(3, 1.0, 10.0),
    Kind.FILL_RESULTS: Habit(3, 1.0, 10.0),
    Kind.REFUSE_BROKER: Habit(3, 1.0, 8.0),
    Kind.REFUSE_RESULTS: Habit(3, 1.0, 8.0),
    Kind.STORM_BROKER: Habit(3, 1.0, 4.0),
    Kind.STORM_RESULTS: Habit(3, 1.0, 4.0),
    Kind.PURGE: Habit(4, 1.0, 4.0),
    Kind.FLUSH_BROKER: Habit(2),
    Kind.FLUSH_RESULTS: Habit(1),
    Kind.STALL_BULK: Habit(5, 2.0, 6.0),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """A scheduled fault.

    Attributes:
        at_s: when it happens, seconds after the first job was submitted; it is delayed while no process qualifies.
        length_s: how long it lasts; 0 if a replacement starts instead.
        draw: a number in [0, 1) that selects the process and the form of the fault.
    """

    at_s: float
    kind: Kind
    length_s: float
    draw: float


def schedule(
    seed: int, faults: int, *, gap_s: float, longest_s: float = math.inf, among: Collection[Kind] = tuple(Kind)
) -> list[Fault]:
    """Return faults about ``gap_s`` apart, in order of time; every kind occurs if there are enough faults.

    Args:
        longest_s: The longest that any fault may last.
    """
    source = random.Random(seed)
    habits = {kind: habit for kind, habit in HABITS.items() if kind in among}
    kinds = list(habits)
    kinds += source.choices(list(habits), [habit.weight for habit in habits.values()], k=max(0, faults - len(kinds)))
    source.shuffle(kinds)
    drawn: list[Fault] = []
    at_s = 0.0
    for kind in kinds[:faults]:
        at_s += gap_s * source.uniform(0.5, 1.5)
        habit = habits[kind]
        length_s = source.uniform(min(habit.shortest_s, longest_s), min(habit.longest_s, longest_s))
        drawn.append(Fault(at_s, kind, length_s, source.random()))
    return drawn
