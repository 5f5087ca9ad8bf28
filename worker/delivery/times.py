"""How long a worker may be silent before it counts as stuck, or as dead."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """The times of one worker's delivery, in seconds. All workers on one queue prefix need the same."""

    #: A killed worker's jobs wait for at most one lease and one round. Three renewals in a row may fail within a lease.
    lease_s: float = 9.0
    #: A lease is renewed, and other workers' leases are checked, at this interval.
    round_s: float = 2.5
    #: The event loop ticks each second. After this long without a tick it is stuck, and so is every acknowledgement.
    loop_silent_s: float = 15.0
    #: A job checks its own deadline. One that still runs this long afterwards hangs in code that does not check it.
    overdue_s: float = 10.0
    #: No batch takes this long on a working device.
    long_batch_s: float = 10.0
