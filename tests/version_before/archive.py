"""The previous version, unpacked from its commit into a folder from which its client and its workers run."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: The last commit whose workers neither count the messages that they take nor record where a job is.
COMMIT = "a1220475810d5648074318d9fbbf67b00d9827c7"
PARTS = ("producer", "worker", "tests")


@dataclass(frozen=True, slots=True)
class Version:
    """A version of the packages that can be run.

    Attributes:
        source: the folder that holds its packages.
    """

    name: str
    source: Path

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment in which a process imports this version, whichever one is installed."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("NAMESHOT_", "NULL_"))}
        return {**inherited, "PYTHONPATH": str(self.source)}


NOW = Version("now", ROOT)


def unpack(folder: Path) -> Version | None:
    """Unpack the previous version into a folder; return None without git or the commit, as in a shallow clone."""
    git = shutil.which("git")
    if git is None:
        return None
    done = subprocess.run([git, "archive", COMMIT, *PARTS], cwd=ROOT, capture_output=True)
    if done.returncode:
        return None
    with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return Version("before", folder)
