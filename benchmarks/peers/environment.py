"""Creates a virtual environment for each peer, because the dependencies of the peers and ours conflict.

Torch, transformers, Pillow and requests come from the environment that runs the benchmark, so that every row computes
with the same versions, and gigabytes of packages are not installed again.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

from benchmarks.peers.failure import PeerFailed

REQUIREMENTS = Path(__file__).parent / "requirements"
#: This is long enough to install Ray, which has hundreds of megabytes.
INSTALL_TIMEOUT_S = 1800.0
#: Python reads the .pth file with this name last, so that the peer's own packages come before ours.
OURS = "zz_benchmark.pth"
STAMP = "installed.txt"


def environment(name: str, folder: Path, requirements: Path = REQUIREMENTS) -> Path:
    """Return the Python of a peer's environment; create it if it is missing or has other requirements.

    Args:
        name: the name of the peer's requirements file, without ``.txt``.
        folder: the folder of all environments; this one becomes ``folder/name``.
        requirements: the folder of the requirements files.

    Raises:
        PeerFailed: the peer cannot be installed here.
    """
    pins = requirements / f"{name}.txt"
    home, wanted = folder / name, pins.read_text()
    python, stamp = home / "bin" / "python", home / STAMP
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    _run([sys.executable, "-m", "venv", "--clear", str(home)])
    # The peer is installed before the .pth file exists, because pip would otherwise count our packages as installed.
    _run([str(python), "-m", "pip", "install", "--disable-pip-version-check", "--requirement", str(pins)])
    share_ours(python)
    stamp.write_text(wanted)
    return python


def share_ours(python: Path) -> None:
    """Let a peer's Python import packages of this process's environment that its own environment lacks."""
    asked = "import sysconfig; print(sysconfig.get_path('purelib'))"
    theirs = _run([str(python), "-c", asked]).strip()
    ours = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (Path(theirs) / OURS).write_text("\n".join(ours) + "\n")


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerFailed(f"its environment cannot be created: {error}") from None
    if done.returncode:
        words = [line for line in done.stderr.splitlines() if line.strip()] or ["no output"]
        raise PeerFailed(f"its environment cannot be created: {' '.join(command[1:4])}: {words[-1][:200]}")
    return done.stdout
