"""CONTRIBUTING.md's drawing of the parts of both packages, from their imports."""

from collections import defaultdict
from graphlib import TopologicalSorter
from itertools import zip_longest

from tests.test_layout import our_imports, room_of

#: The columns of the drawing; worker imports producer.
PACKAGES = ("worker", "producer")


def drawing() -> str:
    """Draw each part above all parts of its package that it imports."""
    worker, producer = (_rows(package) for package in PACKAGES)
    width = max(map(len, worker)) + 4
    head = "worker ".ljust(width - 12, "─") + " imports ─► producer"
    lines = [left.ljust(width) + right for left, right in zip_longest(worker, producer, fillvalue="")]
    return "\n".join(["```text", head, *(line.rstrip() for line in lines), "```"])


def _rows(package: str) -> list[str]:
    """Return the parts of a package, from those that nothing imports down to those that import nothing."""
    imported: dict[str, set[str]] = defaultdict(set)
    for module, names in our_imports().items():
        part = room_of(module)
        if part.startswith(f"{package}.") and not part.endswith("__"):
            imported[part] |= {room_of(name) for name in names if name.startswith(f"{package}.")} - {part}
    height: dict[str, int] = {}
    for part in TopologicalSorter(imported).static_order():
        height[part] = 1 + max((height[other] for other in imported[part]), default=-1)
    rows = defaultdict(list)
    for part in sorted(height):
        rows[height[part]].append(part.removeprefix(f"{package}."))
    return [" · ".join(rows[number]) for number in sorted(rows, reverse=True)]


TABLES = {"parts": drawing}
