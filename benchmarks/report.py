"""From samples to rows: medians of the rounds, and how they compare."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.load import percentile

#: What makes samples one row.
KEYS = ("name", "load", "labels", "images_of_own_labels")
#: What makes samples of one row one round.
ROUND = ("round", "beside")
FIGURES = ("jobs_per_s", "cpu_ms", "of_forward", "of_loop", "ahead")

Sample = Mapping[str, Any]
Row = dict[str, Any]


def rows(samples: Sequence[Sample]) -> list[Row]:
    """A row for each kind of sample, in the order in which they first came.

    A round's figure is the mean of its samples (a limit is measured several times in one), a row's the median of its
    rounds; ratios are taken within a round, then their median. ``spread`` is the slowest and the quickest round;
    ``beyond_ms`` the CPU time beyond that of the bare forward pass.
    """
    found = []
    for kind, of_kind in _grouped(samples, KEYS).items():
        rounds = [_mean(of_round) for of_round in _grouped(of_kind, ROUND).values()]
        medians = {
            figure: round(statistics.median(values), 3)
            for figure in FIGURES
            if (values := [one[figure] for one in rounds if figure in one])
        }
        rates = [one["jobs_per_s"] for one in rounds]
        found.append(
            {**dict(zip(KEYS, kind, strict=True)), **medians, "spread": [round(min(rates), 3), round(max(rates), 3)]}
        )
    forward = next((row["cpu_ms"] for row in found if row["name"] == "forward"), None)
    if forward is not None:
        found = [{**row, "beyond_ms": round(row["cpu_ms"] - forward, 1)} for row in found]
    return found


def _grouped(samples: Sequence[Sample], keys: Sequence[str]) -> dict[tuple[Any, ...], list[Sample]]:
    groups: dict[tuple[Any, ...], list[Sample]] = {}
    for sample in samples:
        groups.setdefault(tuple(sample[key] for key in keys), []).append(sample)
    return groups


def _mean(samples: Sequence[Sample]) -> Sample:
    """Of each figure that they have."""
    return {
        figure: statistics.fmean(values)
        for figure in FIGURES
        if (values := [one[figure] for one in samples if figure in one])
    }


def best_peer(found: Sequence[Row], ours: str) -> dict[int, Row]:
    """By label count the row of somebody else's that we are the least ahead of.

    Not the fastest: peers are measured one after another, and their rates are those of different minutes.
    """
    peers = [row for row in found if row["load"] == "clients" and row["name"] != ours]
    return {
        labels: min((row for row in peers if row["labels"] == labels), key=lambda row: row["ahead"])
        for labels in dict.fromkeys(row["labels"] for row in peers)
    }


def latencies(latencies_ms: Mapping[tuple[str, float], Sequence[float]], loop_per_s: float) -> list[Row]:
    """A row for each contender and offered share of the bare loop's rate, all rounds together."""
    return [
        {
            "name": name,
            "share": share,
            "offered_per_s": round(share * loop_per_s, 2),
            "jobs": len(values),
            **{f"p{percent}_ms": round(percentile(values, percent)) for percent in (50, 95, 99)},
        }
        for (name, share), values in latencies_ms.items()
        if values
    ]


def lone(
    jobs_ms: Sequence[float],
    direct_ms: Mapping[int, Sequence[float]],
    stages_ms: Sequence[Mapping[str, float | None]],
) -> Row:
    """A lone job beside a direct call of the model: medians, of the direct calls those of the faster kind.

    Args:
        stages_ms: where each job was, as its result says; what they leave of its time is ``client and answer``.
    """
    direct, job = min(statistics.median(values) for values in direct_ms.values()), statistics.median(jobs_ms)
    return {
        "jobs": len(jobs_ms),
        "direct_ms": round(direct, 1),
        "job_ms": round(job, 1),
        "longer_ms": round(job - direct, 1),
        "stages_ms": _lone_stages_ms(jobs_ms, stages_ms),
    }


def _lone_stages_ms(jobs_ms: Sequence[float], stages_ms: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    told = [{name: ms or 0.0 for name, ms in one.items()} for one in stages_ms]
    whole = [{**one, "client and answer": job - sum(one.values())} for job, one in zip(jobs_ms, told, strict=True)]
    return {name: round(statistics.median(one[name] for one in whole), 1) for name in whole[0]}
