"""The folder in which `nameshot up` keeps its data, and how other commands find the one that runs.

The folder holds a lock, the append-only file, logs, and ``up.json`` (private to the user): where the running
system is. The lock is held by `nameshot up` and by its Valkey, so a second system never opens the same data,
and a file that a killed one left behind is not believed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

from producer.embedded.failure import EmbeddedError

#: A Valkey whose `nameshot up` was killed leaves within this time.
_LOCK_PATIENCE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class UpInfo:
    """Where a running `nameshot up` can be reached."""

    pid: int
    broker_url: str
    result_backend: str
    queue_prefix: str
    model: str
    url: str
    file_secret: str

    def __repr__(self) -> str:
        return f"UpInfo(pid={self.pid}, url={self.url!r}, model={self.model!r})"


def data_folder() -> Path:
    """The user's folder for nameshot's data, after the platform's custom (``~/.local/share/nameshot`` on Linux)."""
    import platformdirs

    return Path(platformdirs.user_data_path("nameshot", appauthor=False))


def running_up(folder: Path | None = None) -> UpInfo | None:
    """The `nameshot up` that runs for this user now, if any."""
    folder = folder or data_folder()
    try:
        values = json.loads((folder / "up.json").read_text(encoding="utf-8"))
        info = UpInfo(**{field.name: values[field.name] for field in fields(UpInfo)})
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return info if _is_alive(info.pid) and _is_locked(folder / "lock") else None


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[int]:
    """Hold the folder's lock; gives the descriptor, for a child that must hold it too.

    Raises:
        EmbeddedError: another `nameshot up` has it, or the folder cannot be written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise EmbeddedError(f"the data folder {folder} cannot be used: {error.strerror}.") from None
    try:
        deadline = time.monotonic() + _LOCK_PATIENCE_S
        while not _try_lock(lock, fcntl.LOCK_EX):
            info = running_up(folder)
            if info is not None and _is_alive(info.pid):
                raise EmbeddedError(
                    f"`nameshot up` runs already (process {info.pid}, {info.url}); use that one, or stop it first."
                )
            if time.monotonic() > deadline:
                raise EmbeddedError(f"the data folder {folder} is in use by another process; stop that one first.")
            time.sleep(0.05)
        (folder / "up.json").unlink(missing_ok=True)
        yield lock
    finally:
        os.close(lock)


@contextlib.contextmanager
def announced(folder: Path, info: UpInfo) -> Iterator[None]:
    """Let other commands of this user find the system for the length of a ``with`` block."""
    file, draft = folder / "up.json", folder / "up.json.draft"
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    draft.write_text(json.dumps(asdict(info), indent=1) + "\n", encoding="utf-8")
    draft.replace(file)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def _is_locked(lock_file: Path) -> bool:
    try:
        descriptor = os.open(lock_file, os.O_RDWR)
    except OSError:
        return False
    try:
        # Shared, so that two commands that look at the same time do not take each other for the owner.
        return not _try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
