"""A circuit breaker per host.

A circuit opens when at least ten of a host's downloads in the last half minute failed, and at least half of all. So on
a shared host, one user's bad URLs must be as many as all users' good ones. An open circuit refuses downloads for a
pause; then one download is tried, and its outcome closes the circuit or doubles the pause.
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
#: A download's verdict on its host: it works; it caused a failure; neither is known.
Verdict = Literal["good", "bad", "none"]

#: Outcomes are counted in two halves of a window; when the newer one is full, the older one is dropped.
HALF_WINDOW_S: Final = 15.0
#: Fewer failures may be chance. A job's retries do not count, so ten jobs must fail.
MIN_BAD: Final = 10
#: A restart or a failover takes about as long as this first pause; each failed trial doubles it.
FIRST_PAUSE_S: Final = 5.0
#: No pause is longer, whatever an untrusted host requests: jobs are told to try again in a minute.
MAX_PAUSE_S: Final = 60.0
#: Clients choose host names, so the number of circuits is bounded; each takes some 300 bytes.
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
    wanted_until_s: float = 0.0

    def move_to(self, now_s: float) -> None:
        """Drop outcomes that are too old."""
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
        max_hosts: above this the least recently used circuit is evicted, closed ones first.
        clock: a monotonic clock, in seconds.
    """

    def __init__(self, max_hosts: int = MAX_HOSTS, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_hosts = max_hosts
        self._clock = clock
        self._lock = Lock()
        self._circuits: OrderedDict[Host, _Circuit] = OrderedDict()

    def is_open(self, host: Host) -> bool:
        """Whether `enter` would refuse now."""
        with self._lock:
            circuit = self._circuits.get(host)
            return circuit is not None and self._refuses(circuit)

    def enter(self, host: Host) -> Literal["free", "trial", "refused"]:
        """Return whether a download may begin. After ``trial`` the caller must call `leave`, even with ``none``."""
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
            verdict: the outcome's verdict on the host.
            is_trial: whether `enter` returned ``trial``.
            retry_after_s: the pause that the host requested, in seconds.
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
                circuit.wanted_until_s = max(circuit.wanted_until_s, now_s + min(retry_after_s, MAX_PAUSE_S))
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
        circuit.move_to(now_s)
        circuit.good += verdict == "good"
        circuit.bad += verdict == "bad"
        if verdict == "bad" and circuit.has_failed:
            self._open(circuit, now_s)
            logger.warning(
                "%s failed %d downloads within %.0f s: pausing its downloads for %.0f s, longer if it still fails then",
                _name_of(host),
                circuit.bad + circuit.older_bad,
                2 * HALF_WINDOW_S,
                circuit.open_until_s - now_s,
            )

    def _open(self, circuit: _Circuit, now_s: float) -> None:
        circuit.pause_s = min(2 * circuit.pause_s or FIRST_PAUSE_S, MAX_PAUSE_S)
        circuit.open_until_s = max(now_s + circuit.pause_s, circuit.wanted_until_s)

    def _refuses(self, circuit: _Circuit) -> bool:
        return circuit.is_open and (circuit.on_trial or self._clock() < circuit.open_until_s)

    def _add(self, host: Host) -> _Circuit:
        if len(self._circuits) >= self._max_hosts:
            # Closed circuits go first, so that a wildcard domain's many names cannot evict open ones.
            oldest = next((known for known, circuit in self._circuits.items() if not circuit.is_open), None)
            del self._circuits[oldest or next(iter(self._circuits))]
        circuit = self._circuits[host] = _Circuit(half_began_s=self._clock())
        return circuit


def _name_of(host: Host) -> str:
    name, port = host
    return f"host [{name}]:{port}" if ":" in name else f"host {name}:{port}"
