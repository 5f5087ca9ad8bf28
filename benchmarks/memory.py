"""The memory of a program with all processes that it started."""

from __future__ import annotations

from pathlib import Path


def resident_bytes(root: int) -> int:
    """Return the resident memory of a process, its session and all their descendants.

    Linux divides shared pages among the processes (proportional set size), so that pages which a forked pool inherits
    count once.
    """
    total = 0
    for pid in family(root):
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:  # the process has just ended
            continue
        total += 1024 * sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total


def family(root: int) -> set[int]:
    """Return the pids of a session's leader, of its session, and of all processes that these started."""
    parents: dict[int, int] = {}
    found = {root}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The process's name, before the last bracket, may contain spaces.
            _state, parent, _group, session, *_ = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        pid = int(stat.parent.name)
        parents[pid] = int(parent)
        if int(session) == root:
            found.add(pid)
    while further := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= further
    return found
