"""A virtual environment for each peer: their dependencies and ours exclude each other.

Torch, transformers, Pillow and requests come from the environment that runs the benchmark, so that every row computes
with the same versions, and nothing of gigabytes is installed again.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

from benchmarks.peers.failure import PeerFailed

REQUIREMENTS = Path(__file__).parent / "requirements"
#: Ray alone is hundreds of megabytes.
INSTALL_TIMEOUT_S = 1800.0
#: Sorted last among its .pth files; what it adds comes after everything the peer has of its own.
OURS = "zz_benchmark.pth"
STAMP = "installed.txt"


def environment(name: str, folder: Path, requirements: Path = REQUIREMENTS) -> Path:
    """The Python that has the peer; made first where it is missing or of other requirements.

    Args:
        name: of its requirements file, without ``.txt``.
        folder: where environments lie; this one becomes ``folder/name``.
        requirements: where the requirements files lie.

    Raises:
        PeerFailed: it cannot be installed here.
    """
    pins = requirements / f"{name}.txt"
    home, wanted = folder / name, pins.read_text()
    python, stamp = home / "bin" / "python", home / STAMP
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    _run([sys.executable, "-m", "venv", "--clear", str(home)])
    # Before the .pth file, or pip would count our packages as installed.
    _run([str(python), "-m", "pip", "install", "--disable-pip-version-check", "--requirement", str(pins)])
    share_ours(python)
    stamp.write_text(wanted)
    return python


def share_ours(python: Path) -> None:
    """Let that Python find whatever it has not installed itself in the environment that runs this."""
    asked = "import sysconfig; print(sysconfig.get_path('purelib'))"
    theirs = _run([str(python), "-c", asked]).strip()
    ours = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (Path(theirs) / OURS).write_text("\n".join(ours) + "\n")


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerFailed(f"its environment cannot be made: {error}") from None
    if done.returncode:
        words = [line for line in done.stderr.splitlines() if line.strip()] or ["no output"]
        raise PeerFailed(f"its environment cannot be made: {' '.join(command[1:4])}: {words[-1][:200]}")
    return done.stdout
