"""The tables of benchmarks/README.md on latency targets, from ``benchmarks/results/adaptive.json``."""

import json
import math
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "adaptive.json"
#: A setting keeps the target in a phase if it answers at least this share of the phase's images in time.
KEPT = 0.95


def _report() -> dict[str, Any]:
    report: dict[str, Any] = json.loads(RESULTS.read_text())
    return report


def device() -> str:
    """Describe the simulated device and its phases."""
    report = _report()
    device, machine = report["device"], report["machine"]
    phases = "; ".join(
        f"*{phase['name']}*, {phase['per_s']:g} {phase['queue']} images/s"
        + (f" beside {phase['backlog']} bulk images that always wait" if phase["backlog"] else "")
        + (f", the device {phase['slowness']:g} times as slow" if phase["slowness"] != 1 else "")
        for phase in report["phases"]
    )
    return (
        f"A batch of n takes {device['forward_ms']:g} + {device['image_ms']:g} × n ms, ± {device['spread']:.0%}, n at "
        f"most {device['max_batch']}; the target is {report['target_ms']:g} ms. {phases}. Measured on "
        f"{machine['cores']} cores of {machine['cpu']}, load average {machine['load_average_before'][0]:.1f} before."
    )


def rows() -> str:
    """Return a table with a row for each setting and a column for each phase."""
    report = _report()
    phases = [phase["name"] for phase in report["phases"]]
    lines = [["setting", *phases, "phases kept"], ["---"] + ["---:"] * (len(phases) + 1)]
    for row in report["settings"]:
        kept = sum(met["within_target"] >= KEPT for met in row["phases"])
        cells = [
            f"{met['images_per_s']:.0f}/s, {met['p95_ms']:.0f} ms, {_share(met['within_target'])}"
            for met in row["phases"]
        ]
        lines.append([row["setting"], *cells, f"{kept} of {len(phases)}"])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def verdict() -> str:
    """Say which settings keep the target, and compare the adaptive one with the fastest fixed size that keeps it."""
    report = _report()
    adaptive = next(row for row in report["settings"] if row["setting"].startswith("target"))
    fixed = [row for row in report["settings"] if row["setting"].startswith("fixed")]
    said = []
    for number, met in enumerate(adaptive["phases"]):
        keeping = [row for row in fixed if row["phases"][number]["within_target"] >= KEPT]
        if not keeping:
            said.append(f"*{met['phase']}*: no fixed size keeps it")
            continue
        best = max(keeping, key=lambda row: float(row["phases"][number]["images_per_s"]))
        beside = best["phases"][number]
        ratio = met["images_per_s"] / beside["images_per_s"]
        said.append(
            f"*{met['phase']}*: {ratio:.0%} of the images/s of {best['setting']}, the best that keeps it, at a p95 of "
            f"{met['p95_ms']:.0f} against {beside['p95_ms']:.0f} ms"
        )
    all_kept = [row["setting"] for row in report["settings"] if _keeps_all(row)]
    missed = [
        f"*{met['phase']}* ({_share(met['within_target'])} of its images within it)"
        for met in adaptive["phases"]
        if met["within_target"] < KEPT
    ]
    return (
        f"All phases are kept by: {', '.join(all_kept) or 'none'}. Not kept by {adaptive['setting']} itself: "
        f"{', '.join(missed) or 'none'}. {adaptive['setting']}, {'; '.join(said)}."
    )


def _share(share: float) -> str:
    """Format a share in percent, rounded down so that a missed limit never looks met."""
    return "100%" if share == 1 else f"{math.floor(share * 1000) / 10:.1f}%"


def _keeps_all(row: dict[str, Any]) -> bool:
    return all(met["within_target"] >= KEPT for met in row["phases"])


TABLES = {"adaptive device": device, "adaptive rows": rows, "adaptive verdict": verdict}
