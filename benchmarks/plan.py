"""What is measured, for how long, and what one measurement came to."""

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
        peers_labels: label counts that the peers get, the same for all jobs.
        window_s: about half of how long nameshot works between the limits; these have a third of it each time, and
            half of it what is beside a peer or has labels of its own.
        offered_s: how long a load is offered in a round.
    """

    same: Sequence[int]
    different: Sequence[int]
    peers_labels: Sequence[int]
    rounds: int
    window_s: float
    offered_s: float


@dataclass(frozen=True)
class Row:
    """What rounds are the same measurement of.

    Attributes:
        load: ``single`` jobs or ``bulk`` messages, all asked for at once; ``clients`` who each wait; a ``limit``.
        labels: None: none are needed.
    """

    name: str
    load: str
    labels: Labels | None

    def data(self) -> Sample:
        """As it stands in a sample."""
        count, images = (self.labels.count, self.labels.shared_by) if self.labels else (None, None)
        return {"name": self.name, "load": self.load, "labels": count, "images_of_own_labels": images}


@dataclass(frozen=True)
class Round:
    """Which of a row's rounds a sample belongs to.

    Attributes:
        beside: the peer that nameshot and the limits were measured beside; None: they were by themselves.
    """

    number: int
    beside: str | None = None

    def data(self) -> Sample:
        """As it stands in a sample."""
        return {"round": self.number, "beside": self.beside}


@dataclass(frozen=True)
class Done:
    """What a contender came to; CPU time is all its processes', for a job."""

    jobs: int
    per_s: float
    cpu_ms: float
