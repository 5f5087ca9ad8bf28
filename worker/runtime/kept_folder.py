"""Creates a folder of the launcher's again when another program has removed it.

The folder of the sockets is in ``TMPDIR``, where cleaners remove what looks old, such as the files of a process that
has run for weeks.
"""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

#: The mode of a folder that other users may not enter.
PRIVATE: Final = 0o700


class KeptFolder:
    """A folder that `restore` keeps in existence.

    Args:
        path: the folder.
        mode: its mode, from which the process's umask is subtracted; a folder whose mode is `PRIVATE` must belong to
            this user.
    """

    def __init__(self, path: Path, mode: int = 0o777) -> None:
        self.path = path
        self._mode = mode
        self._reason = ""

    def restore(self) -> None:
        """Create the folder again if it was removed; log each success, and why it fails once, until that changes."""
        try:
            if self._is_there():
                self._reason = ""
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.mkdir(self._mode)
        except OSError as error:
            if self._reason != (reason := error.strerror or type(error).__name__):
                logger.error("the folder %s cannot be used (%s) or created again; trying again", self.path, reason)
            self._reason = reason
        else:
            self._reason = ""
            logger.warning("the folder %s was removed: created it again", self.path)

    def _is_there(self) -> bool:
        """Return whether the folder exists; raise `OSError` if another user may control what is there instead."""
        if self._mode != PRIVATE:
            return self.path.exists()
        try:
            found = self.path.lstat()
        except FileNotFoundError:
            return False
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise PermissionError(0, "it is not a folder of this user")
        return True
