"""The data folder of `nameshot up`, in which other commands find the running system.

The folder holds a lock, the append-only file, logs, and ``up.json`` (private to the user) with the addresses of the
running system. `nameshot up` and its Valkey hold the lock, so a second system never opens the same data, and other
commands ignore an ``up.json`` that a killed `nameshot up` left behind.
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

from producer.errors import EmbeddedError

#: A Valkey whose `nameshot up` was killed exits, and so releases the lock, within this time.
_LOCK_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class UpInfo:
    """How other commands reach a running `nameshot up`."""

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
    """Return the user's data folder by the platform's convention (``~/.local/share/nameshot`` on Linux).

    Raises:
        EmbeddedError: the user has no home directory, as in a container that runs as an unknown user.
    """
    import platformdirs

    try:
        return Path(platformdirs.user_data_path("nameshot", appauthor=False))
    except RuntimeError:
        raise EmbeddedError(
            "this user has no home directory for the data of `nameshot up`; set HOME or XDG_DATA_HOME to the absolute "
            "path of a folder."
        ) from None


def running_up(folder: Path | None = None) -> UpInfo | None:
    """Return this user's running `nameshot up`, or None if none is running."""
    try:
        folder = folder or data_folder()
        values = json.loads((folder / "up.json").read_text(encoding="utf-8"))
        info = UpInfo(**{field.name: values[field.name] for field in fields(UpInfo)})
    except (EmbeddedError, OSError, ValueError, KeyError, TypeError):
        return None
    return info if _is_alive(info.pid) and _is_locked(folder / "lock") else None


def is_held(folder: Path) -> bool:
    """Return whether a `nameshot up` uses the folder, even one that is still starting or already stopping."""
    return _is_locked(folder / "lock")


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[int]:
    """Hold the folder's lock during a ``with`` block; yield its descriptor, so that a child can hold the lock too.

    Raises:
        EmbeddedError: another `nameshot up` holds the lock, or the folder is not writable.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise EmbeddedError(f"the data folder {folder} cannot be used: {error.strerror}.") from None
    try:
        deadline = time.monotonic() + _LOCK_TIMEOUT_S
        while not _try_lock(lock, fcntl.LOCK_EX):
            info = running_up(folder)
            if info is not None:
                raise EmbeddedError(
                    f"`nameshot up` is already running (process {info.pid}, {info.url}); use it, or stop it first."
                )
            if time.monotonic() > deadline:
                raise EmbeddedError(f"another process uses the data folder {folder}; stop that process first.")
            time.sleep(0.05)
        (folder / "up.json").unlink(missing_ok=True)
        yield lock
    finally:
        os.close(lock)


@contextlib.contextmanager
def announced(folder: Path, info: UpInfo) -> Iterator[None]:
    """Let other commands of this user find the system during a ``with`` block."""
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
        # The lock is shared, so that two commands that check at once do not mistake each other for the owner.
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
