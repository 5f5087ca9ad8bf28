"""The version before, as its commit has it, in a folder from which its client and its workers run."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: The last commit of the version that neither counts what it takes nor notes where a job is.
COMMIT = "a1220475810d5648074318d9fbbf67b00d9827c7"
PARTS = ("producer", "worker", "tests")


@dataclass(frozen=True, slots=True)
class Version:
    """A version of ours that can be run.

    Attributes:
        source: the folder in which its packages lie.
    """

    name: str
    source: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to import this version and no other, whichever is installed."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("NAMESHOT_", "NULL_"))}
        return {**inherited, "PYTHONPATH": str(self.source)}


NOW = Version("now", ROOT)


def unpack(folder: Path) -> Version | None:
    """The version before, unpacked into a folder; None without git or its commit, as in a shallow clone."""
    git = shutil.which("git")
    if git is None:
        return None
    done = subprocess.run([git, "archive", COMMIT, *PARTS], cwd=ROOT, capture_output=True)
    if done.returncode:
        return None
    with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return Version("before", folder)
