"""Computes rows from samples: the medians of the rounds, and how the rows compare."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.load import percentile

#: Samples with the same values under these keys belong to one row.
KEYS = ("name", "load", "labels", "images_of_own_labels")
#: Samples of a row with the same values under these keys belong to one round.
ROUND = ("round", "beside")
FIGURES = ("jobs_per_s", "cpu_ms", "of_forward", "of_loop", "ahead")

Sample = Mapping[str, Any]
Row = dict[str, Any]


def rows(samples: Sequence[Sample]) -> list[Row]:
    """Return a row for each kind of sample, in the order of their first samples.

    A round's figure is the mean of its samples, because a limit is measured several times in a round. A row's figure is
    the median of its rounds; a ratio is computed within each round first. ``spread`` has the rates of the slowest and
    the fastest round, and ``beyond_ms`` is the CPU time beyond that of the bare forward pass.
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
    """Return the mean of each figure that the samples have."""
    return {
        figure: statistics.fmean(values)
        for figure in FIGURES
        if (values := [one[figure] for one in samples if figure in one])
    }


def best_peer(found: Sequence[Row], ours: str) -> dict[int, Row]:
    """Return, by label count, the peer's row with the smallest ratio of nameshot's rate to the peer's.

    This need not be the peer with the highest rate, because peers are measured minutes apart.
    """
    peers = [row for row in found if row["load"] == "clients" and row["name"] != ours]
    return {
        labels: min((row for row in peers if row["labels"] == labels), key=lambda row: row["ahead"])
        for labels in dict.fromkeys(row["labels"] for row in peers)
    }


def latencies(latencies_ms: Mapping[tuple[str, float], Sequence[float]], loop_per_s: float) -> list[Row]:
    """Return a row for each contender and offered share of the bare loop's rate, with all rounds together."""
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
    """Compare a lone job with a direct call of the model, by medians; use the faster kind of direct call.

    Args:
        stages_ms: the stages in each job's result; the remaining time of a job is ``client and answer``.
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
