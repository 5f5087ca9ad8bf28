"""Prints the results of a run on about one screen."""

from __future__ import annotations

from typing import Any, Final

from rich.console import Console

_WIDTH: Final = 140


def is_right(report: dict[str, Any]) -> bool:
    """Return whether every step ended by itself and all its checks hold."""
    return all(
        step["ended"] == "done" and all(check["ok"] for check in step["checks"]) for step in report["steps"].values()
    )


def show(report: dict[str, Any]) -> None:
    """Print each step's lines, and the checks that failed."""
    console = Console(width=_WIDTH, highlight=False, markup=False)
    for name, step in report["steps"].items():
        for number, line in enumerate(step.get("lines") or ["no figures"]):
            console.print(f"{name if number == 0 else '':<12}{line}")
        for check in step.get("checks", []):
            if not check["ok"]:
                console.print(f"{'':<12}BROKEN: {check['what']}: {check['found']}", style="bold red")
        if step["ended"] != "done":
            console.print(f"{'':<12}{step['ended']}", style="bold red")
            if last := step.get("output", "").strip().splitlines():
                console.print(f"{'':<12}{last[-1]}")
    checks = [check for step in report["steps"].values() for check in step.get("checks", [])]
    held = sum(check["ok"] for check in checks)
    taken_s = sum(step["seconds"] for step in report["steps"].values())
    console.print(f"{held} of {len(checks)} checks held on {report['device']}, in {taken_s:.0f} s")
