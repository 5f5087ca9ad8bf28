"""Read from the kernel how much CPU time another process has used, and whether it is a zombie."""

from __future__ import annotations

import os
from pathlib import Path


def cpu_s(pid: int) -> float | None:
    """Return the CPU seconds of all of a process's threads; None if it has ended or the system has no /proc.

    Callers use this to recognise a frozen process: it neither replies nor uses CPU.
    """
    fields = _fields(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else None


def is_zombie(pid: int) -> bool:
    """Return whether a process has ended and its parent has not yet waited for it."""
    return _fields(pid)[:1] == ["Z"]


def _fields(pid: int) -> list[str]:
    """Return the fields of ``/proc/<pid>/stat`` from the state on; an empty list if the file does not exist."""
    try:
        # The process name, in parentheses, may contain any character.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
