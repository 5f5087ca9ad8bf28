"""A circuit breaker per host.

A circuit opens when at least ten of a host's downloads in the last half minute failed, and they were at least half of
all its downloads. On a shared host, one user's bad URLs therefore open the circuit only if they are as many as all
users' good ones. An open circuit refuses downloads for a pause. Then the worker tries one download: a success closes
the circuit, and a failure doubles the pause.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Final, Literal

logger = logging.getLogger(__name__)

#: A host name and a port.
Host = tuple[str, int]
#: What a download's outcome says about its host: the host works, the host caused a failure, or neither.
Verdict = Literal["good", "bad", "none"]

#: A circuit counts outcomes in two halves of a window. When the newer half is over, it replaces the older one.
HALF_WINDOW_S: Final = 15.0
#: Fewer failures may be chance. Only the failure of a download's first attempt counts, so ten downloads must fail.
MIN_BAD: Final = 10
#: A server's restart or failover lasts about as long as this first pause; each failed trial doubles the pause.
FIRST_PAUSE_S: Final = 5.0
#: No pause is longer, even if the untrusted host requests more, because the error message says "in a minute".
MAX_PAUSE_S: Final = 60.0
#: Clients choose host names, so the number of circuits is bounded; each uses about 300 bytes.
MAX_HOSTS: Final = 4_096


@dataclass(slots=True)
class _Circuit:
    good: int = 0
    bad: int = 0
    older_good: int = 0
    older_bad: int = 0
    half_began_s: float = 0.0
    pause_s: float = 0.0
    #: 0 while the circuit is closed.
    open_until_s: float = 0.0
    on_trial: bool = False
    #: The end of the pause that the host requested by ``Retry-After``.
    requested_until_s: float = 0.0

    def advance(self, now_s: float) -> None:
        """Begin a new half of the window if the present one is over, and drop outcomes that are too old."""
        age_s = now_s - self.half_began_s
        if age_s >= HALF_WINDOW_S:
            recent = age_s < 2 * HALF_WINDOW_S
            self.older_good, self.older_bad = (self.good, self.bad) if recent else (0, 0)
            self.good = self.bad = 0
            self.half_began_s = now_s

    @property
    def is_open(self) -> bool:
        return self.open_until_s > 0

    @property
    def has_failed(self) -> bool:
        bad = self.bad + self.older_bad
        return bad >= MIN_BAD and bad >= self.good + self.older_good


class Circuits:
    """The circuits of recently used hosts. Thread-safe.

    Args:
        max_hosts: the largest number of circuits; above it the least recently used one is evicted, closed ones first.
        clock: a monotonic clock, in seconds.
    """

    def __init__(self, max_hosts: int = MAX_HOSTS, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_hosts = max_hosts
        self._clock = clock
        self._lock = Lock()
        self._circuits: OrderedDict[Host, _Circuit] = OrderedDict()

    def is_open(self, host: Host) -> bool:
        """Return whether `enter` would refuse a download now."""
        with self._lock:
            circuit = self._circuits.get(host)
            return circuit is not None and self._refuses(circuit)

    def enter(self, host: Host) -> Literal["free", "trial", "refused"]:
        """Return whether a download may begin: freely, as the only trial, or not.

        After ``trial`` the caller must call `leave`, whatever the outcome.
        """
        with self._lock:
            circuit = self._circuits.get(host)
            if circuit is None or not circuit.is_open:
                return "free"
            self._circuits.move_to_end(host)
            if self._refuses(circuit):
                return "refused"
            circuit.on_trial = True
            return "trial"

    def leave(self, host: Host, verdict: Verdict, *, is_trial: bool = False, retry_after_s: float = 0.0) -> None:
        """Record a download's outcome.

        Args:
            host: the download's host.
            verdict: what the outcome says about the host.
            is_trial: whether `enter` returned ``trial``.
            retry_after_s: the pause that the host requested, in seconds; 0 if it requested none.
        """
        with self._lock:
            circuit = self._circuits.get(host)
            if circuit is None:
                if verdict == "none":
                    return
                circuit = self._add(host)
            self._circuits.move_to_end(host)
            now_s = self._clock()
            if verdict == "bad":
                circuit.requested_until_s = max(circuit.requested_until_s, now_s + min(retry_after_s, MAX_PAUSE_S))
            if is_trial:
                circuit.on_trial = False
                if verdict == "good":
                    self._circuits[host] = _Circuit(half_began_s=now_s)
                    logger.info("%s works again", _name_of(host))
                elif verdict == "bad":
                    self._open(circuit, now_s)
            elif not circuit.is_open:
                self._count(host, circuit, verdict, now_s)

    def _count(self, host: Host, circuit: _Circuit, verdict: Verdict, now_s: float) -> None:
        circuit.advance(now_s)
        circuit.good += verdict == "good"
        circuit.bad += verdict == "bad"
        if verdict == "bad" and circuit.has_failed:
            self._open(circuit, now_s)
            logger.warning(
                "%s failed %d downloads within %.0f s: pausing its downloads for %.0f s, then longer if it fails again",
                _name_of(host),
                circuit.bad + circuit.older_bad,
                2 * HALF_WINDOW_S,
                circuit.open_until_s - now_s,
            )

    def _open(self, circuit: _Circuit, now_s: float) -> None:
        circuit.pause_s = min(2 * circuit.pause_s or FIRST_PAUSE_S, MAX_PAUSE_S)
        circuit.open_until_s = max(now_s + circuit.pause_s, circuit.requested_until_s)

    def _refuses(self, circuit: _Circuit) -> bool:
        return circuit.is_open and (circuit.on_trial or self._clock() < circuit.open_until_s)

    def _add(self, host: Host) -> _Circuit:
        if len(self._circuits) >= self._max_hosts:
            # Closed circuits are evicted first, so that the many names of a wildcard domain cannot evict open ones.
            oldest = next((known for known, circuit in self._circuits.items() if not circuit.is_open), None)
            del self._circuits[oldest or next(iter(self._circuits))]
        circuit = self._circuits[host] = _Circuit(half_began_s=self._clock())
        return circuit


def _name_of(host: Host) -> str:
    name, port = host
    return f"host [{name}]:{port}" if ":" in name else f"host {name}:{port}"
