"""CONTRIBUTING.md's drawing of the folders of both packages, made from their imports."""

from collections import defaultdict
from graphlib import TopologicalSorter
from itertools import zip_longest

from tests.test_layout import ROOT, our_imports, subpackage_of

#: The columns of the drawing; `worker` imports `producer`.
PACKAGES = ("worker", "producer")


def drawing() -> str:
    """Draw each folder above all folders of its package that it imports, directly or through single modules."""
    worker, producer = (_rows(package) for package in PACKAGES)
    width = max(map(len, worker)) + 4
    head = "worker ".ljust(width - 12, "─") + " imports ─► producer"
    lines = [left.ljust(width) + right for left, right in zip_longest(worker, producer, fillvalue="")]
    return "\n".join(["```text", head, *(line.rstrip() for line in lines), "```"])


def _rows(package: str) -> list[str]:
    """Return the folders of a package, from those that no other imports down to those that import none."""
    imported: dict[str, set[str]] = defaultdict(set)
    for module, names in our_imports().items():
        part = subpackage_of(module)
        if part.startswith(f"{package}.") and not part.endswith("__"):
            imported[part] |= {subpackage_of(name) for name in names if name.startswith(f"{package}.")} - {part}
    folders = {part for part in imported if (ROOT / part.replace(".", "/")).is_dir()}
    height: dict[str, int] = {}
    for part in TopologicalSorter(imported).static_order():
        height[part] = max((height[other] for other in imported[part]), default=0) + (part in folders)
    rows = defaultdict(list)
    for folder in sorted(folders):
        rows[height[folder]].append(folder.removeprefix(f"{package}."))
    return [" · ".join(rows[number]) for number in sorted(rows, reverse=True)]


TABLES = {"parts": drawing}
