"""Whether any worker takes jobs."""

from __future__ import annotations

from producer.contract.names import lease_key, workers_key
from producer.operations.exchanges import Call, Operation


def has_no_worker(prefix: str) -> Operation[bool]:
    """Return True only if it is certain that no worker takes jobs, because none holds a lease.

    If the broker fails, return False.
    """
    names = yield Call("broker", ("SMEMBERS", workers_key(prefix)), may_fail=True)
    if not names:
        return names is not None
    keys = (lease_key(prefix, bytes(name).decode(errors="replace")) for name in sorted(names))
    leases = yield Call("broker", ("MGET", *keys), may_fail=True)
    return leases is not None and all(lease is None for lease in leases)
