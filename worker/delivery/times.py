"""The times after which a worker counts as stuck, or as dead."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """The times of one worker's delivery, in seconds. All workers on one queue prefix need the same times."""

    #: A lease lasts this long. A killed worker's jobs wait for at most one lease and one round, and a worker keeps its
    #: lease even if two renewals in a row fail.
    lease_s: float = 9.0
    #: At this interval each worker renews its lease, and one elected worker checks the leases of all others.
    round_s: float = 2.5
    #: The event loop ticks each second. After this long without a tick it counts as stuck: it acknowledges no job.
    loop_silent_s: float = 15.0
    #: Jobs check their own deadlines. One that still runs this long after its deadline hangs in code that cannot check.
    overdue_s: float = 10.0
    #: A batch that takes this long is worth a warning, since no batch does on a working device.
    long_batch_s: float = 10.0
