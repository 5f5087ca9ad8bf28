"""Read another process's CPU time: a process that neither answers nor uses CPU is frozen."""

from __future__ import annotations

import os
from pathlib import Path


def cpu_s(pid: int) -> float | None:
    """Return the CPU seconds of all its threads; None if it has ended or the system has no /proc."""
    try:
        # The process name, in parentheses, may contain any character.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
