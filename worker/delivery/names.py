"""The keys of the delivery, and the name of a worker process."""

from __future__ import annotations

import os
import secrets
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from producer.contract import (
    COUNTING,
    QUEUES,
    alone_key,
    dead_letter_messages_key,
    dead_letters_key,
    forget_key,
    in_flight_key,
    in_hand_key,
    lease_key,
    looker_key,
    mixed_key,
    postponed_key,
    queue_name,
    rung_name,
    step_names,
    suspects_key,
    taken_name,
    upkeep_key,
    workers_key,
)
from producer.processes.kernel_status import is_zombie

#: On Linux these identify the boot of the kernel, and the namespace in which a process id is unique.
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")

#: The transport sets these headers on each delivered message: how many workers died with it in hand, and how many of
#: them while it ran alone.
DEATHS_HEADER: Final = "nameshot_deaths"
DEATHS_ALONE_HEADER: Final = "nameshot_deaths_alone"
#: This header tells submissions of one id apart, by the delivery tag that the sender chose; "" if there is none.
LIFE_HEADER: Final = "nameshot_life"
#: This header holds the time at which the message was taken, by `worker.delivery.clock`.
TAKEN_HEADER: Final = "nameshot_taken"
#: This header describes a malformed message's fault, in a few words without its content.
FAULT_HEADER: Final = "nameshot_fault"


@dataclass(frozen=True, slots=True)
class DeliveryKeys:
    """Names of the keys in the broker's database, all under the queue prefix.

    Attributes:
        worker: the name of the worker process whose keys these are.
    """

    prefix: str
    worker: str

    @property
    def workers(self) -> str:
        """The set of the names of all workers that may hold messages."""
        return workers_key(self.prefix)

    @property
    def suspects(self) -> str:
        """The hash of how many workers died with each job in hand."""
        return suspects_key(self.prefix)

    @property
    def lease(self) -> str:
        """The worker's lease, which exists while the worker lives."""
        return lease_key(self.prefix, self.worker)

    @property
    def in_flight(self) -> str:
        """The hash of the messages that the worker holds."""
        return in_flight_key(self.prefix, self.worker)

    @property
    def in_hand(self) -> str:
        """The hash of where the message of each taken job is."""
        return in_hand_key(self.prefix)

    @property
    def queues(self) -> tuple[str, ...]:
        """The lists of high, default and bulk."""
        return tuple(queue_name(self.prefix, queue) for queue in QUEUES)

    @property
    def lists(self) -> tuple[str, ...]:
        """All lists in which messages wait: the queues, their lists of rung messages, and their priorities'."""
        return tuple(name for queue in self.queues for name in (queue, rung_name(queue), *step_names(queue)))

    @property
    def counters(self) -> tuple[str, ...]:
        """The counters of how many messages were taken from each queue."""
        return tuple(map(taken_name, self.queues))

    @property
    def put_back(self) -> tuple[str, ...]:
        """The keys, from the second on, of each script that requeues held messages; see `worker.delivery.lua`."""
        rung = map(rung_name, self.queues)
        return (self.in_hand, self.dead_letters, self.dead_letter_messages, *self.queues, *rung, *self.counters)

    @property
    def alone(self) -> str:
        """The id of the job that the worker runs alone; for one image of a bulk job, its index too."""
        return alone_key(self.prefix, self.worker)

    @property
    def dead_letters(self) -> str:
        """The list of the records of dead letters, newest first."""
        return dead_letters_key(self.prefix)

    @property
    def dead_letter_messages(self) -> str:
        """The hash of the messages that belong to those records."""
        return dead_letter_messages_key(self.prefix)

    @property
    def postponed(self) -> str:
        """The sorted set of messages that must not run yet, scored by the time from which they may."""
        return postponed_key(self.prefix)

    @property
    def mixed(self) -> str:
        """A key that exists for a day after a worker of a version that keeps no counters was seen."""
        return mixed_key(self.prefix)

    @property
    def forget(self) -> str:
        """The list of forgotten jobs, whose messages and dead letters are to be removed."""
        return forget_key(self.prefix)

    @property
    def upkeep(self) -> str:
        """The name of the worker that is elected to maintain the database."""
        return upkeep_key(self.prefix)

    @property
    def reclaim_turn(self) -> str:
        """The name of the worker that has just reclaimed dead workers' messages; it expires before the next round."""
        return looker_key(self.prefix)

    def of(self, worker: str) -> DeliveryKeys:
        """Return the keys of another worker under the same prefix."""
        return DeliveryKeys(self.prefix, worker)


def new_worker_name() -> str:
    """Return a unique name for this process: ``<place>/<process id>/n<random>``."""
    return f"{_place()}/{os.getpid()}/{COUNTING}{secrets.token_hex(6)}"


def new_tag() -> str:
    """Return the beginning of a unique delivery tag; the tags of one worker sort by age, oldest first."""
    return f"{time.time_ns():016x}{secrets.token_hex(8)}"


def beginning_of(tag: str) -> str:
    """Return the part of a delivery tag that the worker chose; the job's id may follow it."""
    return tag.partition(" ")[0]


def field_of(job_id: str) -> str:
    """Return a job's id in the form used in fields and marks that have further words, as in `worker.delivery.lua`.

    Spaces become line feeds, which no id contains: another client's id may be ``alone x`` or ``x 7``.
    """
    return job_id.replace(" ", "\n")


def is_known_dead(worker: str) -> bool:
    """Return whether the worker of that name ran in this container, or on this machine, and has ended.

    False may also mean that this process cannot tell.
    """
    place, _, rest = worker.rpartition("/")[0].rpartition("/")
    if place != _place() or not place.startswith("linux-") or not rest.isdecimal():
        return False
    try:
        os.kill(int(rest), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return is_zombie(int(rest))


def _place() -> str:
    """Return a name of the scope in which a process id is unique: on Linux boot and namespace, else the host name."""
    try:
        namespace = str(_NAMESPACE.readlink()).strip("pid:[]")
        return f"linux-{_BOOT.read_text().strip()}-{namespace}"
    except OSError:
        return f"host-{socket.gethostname()}"
