"""``NAMESHOT_READY_FILE``: a file that exists while the worker takes jobs."""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from producer.errors import SettingsError

logger = logging.getLogger(__name__)

#: Supervisors check at most once a second, so a file that is out of date for at most this long is accurate enough.
#: The launcher checks the ready files of its fronts at the same interval.
UPDATE_INTERVAL_S: Final = 0.25
#: A process touches its file at each update. If it has not done so for this long, it is frozen and not just busy.
FROZEN_S: Final = 10.0


def is_kept(path: Path) -> bool:
    """Return whether a ready file exists and its process is not frozen."""
    try:
        return time.time() - path.stat().st_mtime < FROZEN_S
    except OSError:
        return False


class ReadyFile:
    """Creates and removes the file.

    After `prepare`, one warning is logged if updates fail, because jobs run without the file. A single failure is not
    logged: the launcher creates a folder that was removed again before the next update.

    Args:
        path: the file's path; None or empty if there is no file to maintain.
        is_ready: returns whether the worker takes jobs now.
    """

    def __init__(self, path: str | None, is_ready: Callable[[], bool] = lambda: False) -> None:
        self._path = Path(path) if path else None
        self._is_ready = is_ready
        #: The lock is reentrant, because a signal handler may interrupt `update` in the main thread and call it again.
        self._lock = threading.RLock()
        self._has_failed = self._has_warned = False

    def prepare(self) -> None:
        """Remove the file of an earlier process that was killed, and check that a file can be created.

        Raises:
            SettingsError: no file can be created at the path.
        """
        if self._path is None:
            return
        try:
            if self._path.exists() and not self._path.is_file():
                raise SettingsError(
                    f"NAMESHOT_READY_FILE is {str(self._path)!r}, which is not a file; name another path."
                )
            with tempfile.TemporaryFile(dir=self._path.absolute().parent):
                self._path.unlink(missing_ok=True)
        except OSError as error:
            raise SettingsError(
                f"NAMESHOT_READY_FILE is {str(self._path)!r}, and no file can be created there ({error.strerror}); "
                "choose an existing folder that this user may write to."
            ) from None

    def remove(self) -> None:
        """Remove the file for good, because its process is stopping or has ended."""
        self._is_ready = lambda: False
        self.update()

    def start_updates(self) -> None:
        """Update the file now, and then every 0.25 s in a thread, because a frozen engine causes no event."""
        self.update()
        if self._path is not None:
            threading.Thread(target=self._update_forever, name="ready-file", daemon=True).start()

    def _update_forever(self) -> None:
        while True:
            time.sleep(UPDATE_INTERVAL_S)
            self.update()

    def update(self) -> None:
        """Create or touch the file if the worker takes jobs now; remove it otherwise."""
        if self._path is None:
            return
        with self._lock:
            try:
                if not self._is_ready():
                    self._path.unlink(missing_ok=True)
                else:
                    self._path.touch()
            except OSError as error:
                if self._has_failed and not self._has_warned:
                    self._has_warned = True
                    logger.warning(
                        "the ready file %r cannot be created or removed (%s) and may be wrong; jobs continue",
                        str(self._path),
                        error.strerror,
                    )
                self._has_failed = True
            else:
                self._has_failed = False
