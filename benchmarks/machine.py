"""The machine, for reports."""

from __future__ import annotations

import platform
from pathlib import Path


def cpu_name() -> str:
    """The processor as Linux names it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
