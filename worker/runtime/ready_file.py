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

#: The launcher checks the ready files of its fronts at the same interval.
LOOK_S: Final = 0.25


class ReadyFile:
    """Creates and removes the file. After `begin` a failure is logged once as a warning, since jobs do not need it.

    Args:
        path: the file's path; None or empty for no file.
        is_ready: returns whether jobs are taken now.
    """

    def __init__(self, path: str | None, is_ready: Callable[[], bool] = lambda: False) -> None:
        self._path = Path(path) if path else None
        self._is_ready = is_ready
        #: Reentrant, since a signal handler may interrupt the main thread in here and call `look` as well.
        self._lock = threading.RLock()
        self._has_warned = False

    def begin(self) -> None:
        """Remove the file of an earlier process that was killed.

        Raises:
            SettingsError: no file can be created there.
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
                "name one in an existing folder that this user may write to."
            ) from None

    def remove(self) -> None:
        """Remove the file for good, since its process stops or has stopped."""
        self._is_ready = lambda: False
        self.look()

    def keep(self) -> None:
        """Call `look` now, and from now on in a thread, since an engine's silence causes no event."""
        self.look()
        if self._path is not None:
            threading.Thread(target=self._keep, name="ready-file", daemon=True).start()

    def _keep(self) -> None:
        while True:
            time.sleep(LOOK_S)
            self.look()

    def look(self) -> None:
        """Create or remove the file, as `is_ready` decides."""
        if self._path is None:
            return
        with self._lock:
            try:
                if not self._is_ready():
                    self._path.unlink(missing_ok=True)
                elif not self._path.exists():
                    self._path.touch()
            except OSError as error:
                if not self._has_warned:
                    self._has_warned = True
                    logger.warning(
                        "NAMESHOT_READY_FILE %r cannot be created or removed (%s) and may be wrong; jobs go on",
                        str(self._path),
                        error.strerror,
                    )
