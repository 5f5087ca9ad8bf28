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
        f"*{phase['name']}*, with {phase['per_s']:g} {phase['queue']} images/s"
        + (f" beside {phase['backlog']} bulk images that always wait" if phase["backlog"] else "")
        + (f" and a device {phase['slowness']:g} times as slow" if phase["slowness"] != 1 else "")
        for phase in report["phases"]
    )
    return (
        f"A batch of n images, at most {device['max_batch']}, takes {device['forward_ms']:g} + {device['image_ms']:g} "
        f"× n ms, ± {device['spread']:.0%}; the target is {report['target_ms']:g} ms. The phases are {phases}. "
        f"Measured on {machine['cores']} cores of {machine['cpu']}, load average "
        f"{machine['load_average_before'][0]:.1f} before."
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
            said.append(f"in *{met['phase']}*, no fixed size keeps the phase")
            continue
        best = max(keeping, key=lambda row: float(row["phases"][number]["images_per_s"]))
        beside = best["phases"][number]
        ratio = met["images_per_s"] / beside["images_per_s"]
        said.append(
            f"in *{met['phase']}* {ratio:.0%} of the images/s of `{best['setting']}`, with a p95 of "
            f"{met['p95_ms']:.0f} instead of {beside['p95_ms']:.0f} ms"
        )
    all_kept = [row["setting"] for row in report["settings"] if _keeps_all(row)]
    missed = [
        f"*{met['phase']}* ({_share(met['within_target'])} of the images within the target)"
        for met in adaptive["phases"]
        if met["within_target"] < KEPT
    ]
    return (
        f"Settings that keep all phases: {', '.join(f'`{name}`' for name in all_kept) or 'none'}. "
        f"Phases that `{adaptive['setting']}` does not keep: {', '.join(missed) or 'none'}. Compared with the fastest "
        f"fixed setting that keeps a phase, `{adaptive['setting']}` has {'; '.join(said)}."
    )


def _share(share: float) -> str:
    """Format a share in percent, rounded down so that a missed limit never looks met."""
    return "100%" if share == 1 else f"{math.floor(share * 1000) / 10:.1f}%"


def _keeps_all(row: dict[str, Any]) -> bool:
    return all(met["within_target"] >= KEPT for met in row["phases"])


TABLES = {"adaptive device": device, "adaptive rows": rows, "adaptive verdict": verdict}
