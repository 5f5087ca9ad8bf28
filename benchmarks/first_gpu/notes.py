"""What a step finds out, written down at once: of one that is cut off all is kept that it had found by then."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TypedDict


class Check(TypedDict):
    """Something that had to hold."""

    what: str
    ok: bool
    found: str


class Found(TypedDict):
    """All of a step's notes.

    Attributes:
        lines: for people.
    """

    figures: dict[str, Any]
    checks: list[Check]
    lines: list[str]


class Notes:
    """A file of `Found`, new after each call.

    Args:
        path: of the file; it is replaced, so that no reader finds half of it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: Found = {"figures": {}, "checks": [], "lines": []}
        self._write()

    def figure(self, name: str, value: Any) -> None:
        """A measurement, or a table of them."""
        self._found["figures"][name] = value
        self._write()

    def check(self, what: str, ok: bool, found: object) -> None:
        """Something that has to hold, and what was seen."""
        self._found["checks"].append({"what": what, "ok": bool(ok), "found": str(found)})
        self._write()

    def line(self, text: str) -> None:
        """What a reader should see."""
        self._found["lines"].append(text)
        self._write()

    def _write(self) -> None:
        half = self._path.with_suffix(f".{os.getpid()}")
        half.write_text(json.dumps(self._found))
        half.rename(self._path)


def read_notes(path: Path) -> Found:
    """What a step has written so far; nothing, where it has not come to that."""
    if not path.exists():
        return {"figures": {}, "checks": [], "lines": []}
    found: Found = json.loads(path.read_text())
    return found
