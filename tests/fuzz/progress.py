"""A page of memory that a fuzzing process shares with the one that watches it, and that outlives its death."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Final

#: Cases judged, inputs begun, bytes of the last input.
_HEADER: Final = struct.Struct("<QQQ")
MAX_INPUT_BYTES: Final = 1 << 20


class Progress:
    """How many cases there were, and the input that was tried last.

    Args:
        file: shared with another process by being the same file.
    """

    def __init__(self, file: Path) -> None:
        size_bytes = _HEADER.size + MAX_INPUT_BYTES
        if not file.exists():
            file.write_bytes(bytes(size_bytes))
        with file.open("r+b") as opened:
            self._memory = mmap.mmap(opened.fileno(), size_bytes)
        self._cases, self._begun, _ = _HEADER.unpack_from(self._memory)

    def begin(self, data: bytes) -> None:
        """An input is about to be tried."""
        self._begun += 1
        self._memory[_HEADER.size : _HEADER.size + len(data)] = data
        _HEADER.pack_into(self._memory, 0, self._cases, self._begun, len(data))

    def judged(self) -> None:
        """It was a case, and nothing was wrong with it."""
        self._cases += 1
        struct.pack_into("<Q", self._memory, 0, self._cases)

    @property
    def cases(self) -> int:
        """Cases judged so far, by whichever process."""
        return int(_HEADER.unpack_from(self._memory)[0])

    @property
    def begun(self) -> int:
        """Inputs tried so far, by whichever process."""
        return int(_HEADER.unpack_from(self._memory)[1])

    @property
    def last_input(self) -> bytes:
        """The input tried last."""
        length = _HEADER.unpack_from(self._memory)[2]
        return self._memory[_HEADER.size : _HEADER.size + length]
