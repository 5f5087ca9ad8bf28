"""Memory that a fuzzing process shares with its watcher, and that survives the process's death."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Final

#: The numbers of passed cases and of started inputs, and the last input's length in bytes.
_HEADER: Final = struct.Struct("<QQQ")
MAX_INPUT_BYTES: Final = 1 << 20


class Progress:
    """The number of cases so far, and the last input.

    Args:
        file: The file whose memory the processes share.
    """

    def __init__(self, file: Path) -> None:
        size_bytes = _HEADER.size + MAX_INPUT_BYTES
        if not file.exists():
            file.write_bytes(bytes(size_bytes))
        with file.open("r+b") as opened:
            self._memory = mmap.mmap(opened.fileno(), size_bytes)
        self._cases, self._begun, _ = _HEADER.unpack_from(self._memory)

    def begin(self, data: bytes) -> None:
        """Record an input that is about to run."""
        self._begun += 1
        self._memory[_HEADER.size : _HEADER.size + len(data)] = data
        _HEADER.pack_into(self._memory, 0, self._cases, self._begun, len(data))

    def judged(self) -> None:
        """Record that the last input was a case and passed."""
        self._cases += 1
        struct.pack_into("<Q", self._memory, 0, self._cases)

    @property
    def cases(self) -> int:
        """The number of cases that have passed in any process."""
        return int(_HEADER.unpack_from(self._memory)[0])

    @property
    def begun(self) -> int:
        """The number of inputs that any process has started."""
        return int(_HEADER.unpack_from(self._memory)[1])

    @property
    def last_input(self) -> bytes:
        """The last input that was started."""
        length = _HEADER.unpack_from(self._memory)[2]
        return self._memory[_HEADER.size : _HEADER.size + length]
