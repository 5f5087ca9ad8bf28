"""``NAMESHOT_READY_FILE``: a file that is there while jobs are taken."""

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

#: As often as the launcher looks, which has a file of this kind for each of its fronts.
LOOK_S: Final = 0.25


class ReadyFile:
    """Makes and removes the file. From `begin` on, trouble with it is one warning: jobs do not need it.

    Args:
        path: None or empty: nobody asks.
        is_ready: whether jobs are taken now; False where it cannot be told (`OSError`).
    """

    def __init__(self, path: str | None, is_ready: Callable[[], bool] = lambda: False) -> None:
        self._path = Path(path) if path else None
        self._is_ready = is_ready
        #: Signal handlers look too, in the main thread, which may be looking already.
        self._lock = threading.RLock()
        self._complained = False

    def begin(self) -> None:
        """Remove what a process that was killed has left.

        Raises:
            SettingsError: no file can be made there.
        """
        if self._path is None:
            return
        try:
            if self._path.exists() and not self._path.is_file():
                raise SettingsError(f"NAMESHOT_READY_FILE is {str(self._path)!r}, which is no file; name another one.")
            with tempfile.TemporaryFile(dir=self._path.absolute().parent):
                self._path.unlink(missing_ok=True)
        except OSError as error:
            raise SettingsError(
                f"NAMESHOT_READY_FILE is {str(self._path)!r}, and no file can be made there ({error.strerror}); name "
                "one in a folder that is there and may be written to."
            ) from None

    def look(self) -> None:
        """Make the file or remove it."""
        with self._lock:
            self._set(self._is_ready)

    def remove(self) -> None:
        """Whoever makes it is told to stop, or has stopped."""
        with self._lock:
            self._set(lambda: False)

    def keep(self) -> None:
        """Look, and from now on in a thread: an engine that is away tells nobody when it has been silent too long."""
        self.look()
        if self._path is not None:
            threading.Thread(target=self._keep, name="ready-file", daemon=True).start()

    def _keep(self) -> None:
        while True:
            time.sleep(LOOK_S)
            self.look()

    def _set(self, is_ready: Callable[[], bool]) -> None:
        if self._path is None:
            return
        try:
            if not is_ready():
                self._path.unlink(missing_ok=True)
            elif not self._path.exists():
                self._path.touch()
        except OSError as error:
            if not self._complained:
                self._complained = True
                logger.warning(
                    "NAMESHOT_READY_FILE %r cannot be made or removed (%s) and may be wrong; jobs go on",
                    str(self._path),
                    error.strerror,
                )
