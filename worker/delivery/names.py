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
    suspects_key,
    taken_name,
    upkeep_key,
    workers_key,
)

#: Linux: which boot of which kernel, and which process namespace a process id counts in.
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")

#: Set on each delivered message: how many workers died with it in hand, and with it alone in hand.
DEATHS_HEADER: Final = "nameshot_deaths"
DEATHS_ALONE_HEADER: Final = "nameshot_deaths_alone"
#: Likewise: which submission of its id a message is, by the delivery tag that its sender gave it; "" where it has none.
LIFE_HEADER: Final = "nameshot_life"
#: Likewise: when it was taken, by `worker.delivery.clock`.
TAKEN_HEADER: Final = "nameshot_taken"
#: Likewise: what is wrong with the message itself, in a few words without its content.
FAULT_HEADER: Final = "nameshot_fault"


@dataclass(frozen=True, slots=True)
class DeliveryKeys:
    """Keys in the broker's database, all under the queue prefix.

    Attributes:
        worker: the name of the process they belong to.
    """

    prefix: str
    worker: str

    @property
    def workers(self) -> str:
        """Set of the names of all workers that may hold messages."""
        return workers_key(self.prefix)

    @property
    def suspects(self) -> str:
        """Hash of how often each job was in the hands of a worker that died."""
        return suspects_key(self.prefix)

    @property
    def lease(self) -> str:
        """Exists while the worker lives."""
        return lease_key(self.prefix, self.worker)

    @property
    def in_flight(self) -> str:
        """Hash of the messages that the worker holds."""
        return in_flight_key(self.prefix, self.worker)

    @property
    def in_hand(self) -> str:
        """Hash of where the message of each job is that was taken."""
        return in_hand_key(self.prefix)

    @property
    def queues(self) -> tuple[str, ...]:
        """The lists of high, default and bulk."""
        return tuple(queue_name(self.prefix, queue) for queue in QUEUES)

    @property
    def counters(self) -> tuple[str, ...]:
        """How many messages were taken of each queue."""
        return tuple(map(taken_name, self.queues))

    @property
    def put_back(self) -> tuple[str, ...]:
        """What each script touches that puts a held message back, from its second key on; see `worker.delivery.lua`."""
        rung = map(rung_name, self.queues)
        return (self.in_hand, self.dead_letters, self.dead_letter_messages, *self.queues, *rung, *self.counters)

    @property
    def alone(self) -> str:
        """The id of the job that the worker runs with nothing beside it; for one image of many, its number too."""
        return alone_key(self.prefix, self.worker)

    @property
    def dead_letters(self) -> str:
        """List of the records of what was given up, newest first."""
        return dead_letters_key(self.prefix)

    @property
    def dead_letter_messages(self) -> str:
        """Hash of the messages behind those records."""
        return dead_letter_messages_key(self.prefix)

    @property
    def postponed(self) -> str:
        """Sorted set of the messages that may not run yet, by when they may."""
        return postponed_key(self.prefix)

    @property
    def mixed(self) -> str:
        """Exists for a day after a worker of a version was seen that counts nothing."""
        return mixed_key(self.prefix)

    @property
    def forget(self) -> str:
        """List of the jobs of which nothing is to be left."""
        return forget_key(self.prefix)

    @property
    def upkeep(self) -> str:
        """Names the worker that keeps the database in order."""
        return upkeep_key(self.prefix)

    @property
    def reclaim_turn(self) -> str:
        """Exists while somebody has just looked after the dead."""
        return looker_key(self.prefix)

    def of(self, worker: str) -> DeliveryKeys:
        """The same keys of another worker."""
        return DeliveryKeys(self.prefix, worker)


def new_worker_name() -> str:
    """A name for this process, never used before: ``<place>/<process id>/n<random>``."""
    return f"{_place()}/{os.getpid()}/{COUNTING}{secrets.token_hex(6)}"


def new_tag() -> str:
    """The beginning of a delivery tag, never used before; of one worker's tags the oldest sorts first."""
    return f"{time.time_ns():016x}{secrets.token_hex(8)}"


def beginning_of(tag: str) -> str:
    """What the taker chose of a delivery tag; the id follows where it is known."""
    return tag.partition(" ")[0]


def field_of(job_id: str) -> str:
    """A job's id as it stands in fields and marks that have further words, as `worker.delivery.lua` has it too.

    Another client's id may be ``alone x`` or ``x 7``, but none holds a line feed.
    """
    return job_id.replace(" ", "\n")


def is_known_dead(worker: str) -> bool:
    """Whether the process of that name was on this machine, in this container, and is no more.

    False also means: cannot be told from here.
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
    return _is_zombie(int(rest))


def _is_zombie(process_id: int) -> bool:
    """Killed, and its parent has not asked for its status yet."""
    try:
        status = Path(f"/proc/{process_id}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[:1] == ["Z"]


def _place() -> str:
    """Where a process id means one process: on Linux the boot and the namespace, elsewhere only a host's name."""
    try:
        namespace = str(_NAMESPACE.readlink()).strip("pid:[]")
        return f"linux-{_BOOT.read_text().strip()}-{namespace}"
    except OSError:
        return f"host-{socket.gethostname()}"
