"""Tells the next engine of a socket which GPU the present one uses."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


class GpuInUse:
    """The file in which an engine names its GPU; an engine that ends in order removes it.

    Args:
        path: the file. A cleaner of old files may remove it, or its whole folder, at any time.

    Attributes:
        name: the GPU that this engine uses; empty for none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = ""

    def read(self) -> str:
        """Return the GPU of an earlier engine that has not ended in order; empty if there is none."""
        with suppress(OSError):
            return self._path.read_text()
        return ""

    def keep(self) -> None:
        """Write the file unless it exists; without it, this engine works as well."""
        if self.name and not self._path.exists():
            with suppress(OSError):
                self._path.write_text(self.name)

    def forget(self) -> None:
        """Remove the file."""
        with suppress(OSError):
            self._path.unlink()
