"""The memory of a program with all the processes it started."""

from __future__ import annotations

from pathlib import Path


def resident_bytes(root: int) -> int:
    """Resident memory of a process, its session and all their descendants.

    Pages that several of them share are divided among them (Linux' proportional set size), so that a forked pool is
    not charged twice for what it inherited.
    """
    total = 0
    for pid in family(root):
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:  # it has just ended
            continue
        total += 1024 * sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total


def family(root: int) -> set[int]:
    """The pids of a session's leader, of its session, and of everything that those started."""
    parents: dict[int, int] = {}
    found = {root}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name before the bracket may hold spaces.
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
