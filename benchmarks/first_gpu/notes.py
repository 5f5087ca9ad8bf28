"""The findings of a step, which are written at once, so that a step which is cut off keeps them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TypedDict


class Check(TypedDict):
    """A condition that must hold, and what the step found."""

    what: str
    ok: bool
    found: str


class Found(TypedDict):
    """All findings of a step.

    Attributes:
        lines: a summary for people.
    """

    figures: dict[str, Any]
    checks: list[Check]
    lines: list[str]


class Notes:
    """A file with `Found` as JSON, written after each call.

    Args:
        path: the file's path; the file is replaced each time, so that no reader finds half of it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: Found = {"figures": {}, "checks": [], "lines": []}
        self._write()

    def figure(self, name: str, value: Any) -> None:
        """Record a measurement, or a table of measurements."""
        self._found["figures"][name] = value
        self._write()

    def check(self, what: str, ok: bool, found: object) -> None:
        """Record whether a condition holds, and what was found."""
        self._found["checks"].append({"what": what, "ok": bool(ok), "found": str(found)})
        self._write()

    def line(self, text: str) -> None:
        """Record a line for people."""
        self._found["lines"].append(text)
        self._write()

    def _write(self) -> None:
        half = self._path.with_suffix(f".{os.getpid()}")
        half.write_text(json.dumps(self._found))
        half.rename(self._path)


def read_notes(path: Path) -> Found:
    """Return what a step has written so far; empty findings if it has written nothing."""
    if not path.exists():
        return {"figures": {}, "checks": [], "lines": []}
    found: Found = json.loads(path.read_text())
    return found
