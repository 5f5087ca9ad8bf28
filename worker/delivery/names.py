"""The keys of the delivery, and the name of a worker process."""

from __future__ import annotations

import os
import secrets
import socket
import time
from pathlib import Path

from producer.contract import names
from producer.contract.names import COUNTING, QUEUES
from producer.processes.kernel_status import is_zombie


class DeliveryKeys:
    """Names of the keys in the broker's database, all under the queue prefix.

    Args:
        prefix: the queue prefix.
        worker: the name of the worker process whose keys these are.
    """

    def __init__(self, prefix: str, worker: str) -> None:
        self.prefix = prefix
        self.worker = worker
        #: The set of the names of all workers that may hold messages.
        self.workers = names.workers_key(prefix)
        #: The hash of how many workers died with each job in hand.
        self.suspects = names.suspects_key(prefix)
        #: The worker's lease, which exists while the worker lives.
        self.lease = names.lease_key(prefix, worker)
        #: The hash of the messages that the worker holds.
        self.in_flight = names.in_flight_key(prefix, worker)
        #: The hash of the location of each taken job's message.
        self.in_hand = names.in_hand_key(prefix)
        #: The worker's mark: the job, or the image of a bulk job, that runs alone, or that the worker is shutting down.
        self.alone = names.alone_key(prefix, worker)
        #: The list of the records of dead letters, newest first.
        self.dead_letters = names.dead_letters_key(prefix)
        #: The hash of the messages that belong to those records.
        self.dead_letter_messages = names.dead_letter_messages_key(prefix)
        #: The sorted set of messages that must not run yet, scored by the time from which they may.
        self.postponed = names.postponed_key(prefix)
        #: A key that exists while a worker of a version without counters is listed, and for a day after that.
        self.mixed = names.mixed_key(prefix)
        #: The list of forgotten jobs, whose messages and dead letters are to be removed.
        self.forget = names.forget_key(prefix)
        #: The name of the worker that is elected to maintain the database.
        self.upkeep = names.upkeep_key(prefix)
        #: The name of the worker that reclaims dead workers' messages in this round; expires before the next round.
        self.reclaim_turn = names.looker_key(prefix)
        #: The lists of high, default and bulk.
        self.queues = tuple(names.queue_name(prefix, queue) for queue in QUEUES)
        #: All lists in which messages wait: those of the queues, of rung messages, and of priorities.
        self.lists = tuple(name for queue in self.queues for name in names.waiting_names(queue))
        #: The counters of how many messages were taken from each queue.
        self.counters = tuple(map(names.taken_name, self.queues))
        rung = map(names.rung_name, self.queues)
        #: The keys, from the second on, of each script that requeues held messages; see `worker.delivery.lua`.
        self.put_back = (
            *(self.in_hand, self.dead_letters, self.dead_letter_messages),
            *(*self.queues, *rung, *self.counters),
        )

    def of(self, worker: str) -> DeliveryKeys:
        """Return the keys of another worker under the same prefix."""
        return DeliveryKeys(self.prefix, worker)


def new_worker_name() -> str:
    """Return a unique name for this process: ``<scope>/<process id>/n<random>``."""
    return f"{_scope()}/{os.getpid()}/{COUNTING}{secrets.token_hex(6)}"


def new_tag() -> str:
    """Return the beginning of a unique delivery tag; the tags of one worker sort by age, oldest first."""
    return f"{time.time_ns():016x}{secrets.token_hex(8)}"


def beginning_of(tag: str) -> str:
    """Return the part of a delivery tag that the worker chose; the job's id may follow it."""
    return tag.partition(" ")[0]


def field_of(job_id: str) -> str:
    """Return a job's id as it appears in hash fields and marks that consist of several words separated by spaces.

    Spaces become line feeds, which no id contains, since a plain client's id such as ``alone x`` or ``x 7`` could be
    mistaken for several words. ``field`` in `worker.delivery.lua` does the same.
    """
    return job_id.replace(" ", "\n")


def is_known_dead(worker: str) -> bool:
    """Return whether the worker of that name ran in this container, or on this machine, and has ended.

    False may also mean that this process cannot tell.
    """
    scope, _, rest = worker.rpartition("/")[0].rpartition("/")
    if scope != _scope() or not scope.startswith("linux-") or not rest.isdecimal():
        return False
    try:
        os.kill(int(rest), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return is_zombie(int(rest))


def _scope() -> str:
    """Return a name for the scope in which process ids are unique: boot and PID namespace on Linux, else the host."""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]")
        return f"linux-{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}-{namespace}"
    except OSError:
        return f"host-{socket.gethostname()}"
