"""Whether any worker takes jobs, and from which queues."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from producer.contract.lease_value import LeaseValue, unserved_queues
from producer.contract.names import Queue, lease_key, workers_key
from producer.operations.exchanges import Call, Operation
from producer.operations.whereabouts import locate


@dataclass(frozen=True, slots=True)
class Serving:
    """What the leases say about all workers together.

    Attributes:
        unserved: the queues from which certainly no worker takes jobs.
        has_workers: whether any worker lives, or may live.
    """

    unserved: frozenset[Queue]
    has_workers: bool


#: What a client knows while the broker does not answer.
UNKNOWN: Final = Serving(frozenset(), has_workers=True)


def serving(prefix: str) -> Operation[Serving]:
    """Read the leases of all workers; if the broker fails, no queue counts as unserved."""
    names = yield Call("broker", ("SMEMBERS", workers_key(prefix)), may_fail=True)
    leases: list[bytes | None] | None = None if names is None else []
    if names:
        keys = (lease_key(prefix, bytes(name).decode(errors="replace")) for name in sorted(names))
        leases = yield Call("broker", ("MGET", *keys), may_fail=True)
    if leases is None:
        return UNKNOWN
    living = [LeaseValue.read(lease) for lease in leases if lease is not None]
    return Serving(unserved_queues(living), bool(living))


def waits_in(prefix: str, job_id: str) -> Operation[str | None]:
    """Return the short name of the queue in which a job waits; None if it does not wait, or its queue is unknown."""
    snapshot = yield from locate(prefix, [job_id])
    return None if snapshot.traces[job_id].is_held else snapshot.waits_in(job_id)


def lacks_worker(prefix: str, job_id: str) -> Operation[bool]:
    """Return True only if it is certain that no worker takes jobs from the queue in which a job waits."""
    found = yield from serving(prefix)
    if not found.has_workers or not found.unserved:
        return not found.has_workers
    return (yield from waits_in(prefix, job_id)) in found.unserved


def is_unserved(prefix: str, queue: Queue) -> Operation[bool]:
    """Return True only if it is certain that no worker takes jobs from a queue."""
    return queue in (yield from serving(prefix)).unserved
