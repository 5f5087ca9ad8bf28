"""What is measured, for how long, and the results of a measurement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.labels import Labels

#: One measurement in one round, as data.
Sample = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What is measured, and for how long.

    Attributes:
        same: label counts of jobs that all have the same labels.
        different: label counts of jobs that each have labels of their own.
        peers_labels: label counts of jobs for the peers; all jobs have the same labels.
        window_s: the unit of durations. Nameshot works for two windows between the limits, or for half a window beside
            a peer or with labels of its own. A limit is measured for a third of a window, and a peer for half of one.
        offered_s: the duration of an offered load in a round.
    """

    same: Sequence[int]
    different: Sequence[int]
    peers_labels: Sequence[int]
    rounds: int
    window_s: float
    offered_s: float


@dataclass(frozen=True)
class Row:
    """A measurement that is repeated in each round.

    Attributes:
        load: ``single`` jobs or ``bulk`` messages, all submitted at once; waiting ``clients``; or a ``limit``.
        labels: the labels of its jobs; None if the measurement needs none.
    """

    name: str
    load: str
    labels: Labels | None

    def data(self) -> Sample:
        """Return the row's part of a sample."""
        count, images = (self.labels.count, self.labels.shared_by) if self.labels else (None, None)
        return {"name": self.name, "load": self.load, "labels": count, "images_of_own_labels": images}


@dataclass(frozen=True)
class Round:
    """The round to which a sample belongs.

    Attributes:
        beside: the peer beside which nameshot and the limits were measured; None if there was no peer.
    """

    number: int
    beside: str | None = None

    def data(self) -> Sample:
        """Return the round's part of a sample."""
        return {"round": self.number, "beside": self.beside}


@dataclass(frozen=True)
class Done:
    """The result of a measurement; `cpu_ms` is the CPU time per job of all processes of the contender."""

    jobs: int
    per_s: float
    cpu_ms: float
