"""Standard output and standard error that never make this process wait long, even if no program reads them.

A log collector that stalls, or a terminal held with Ctrl-S, makes writes block. Each thread that logs would then wait
for the thread that writes, and the worker could neither work nor end. So the streams wait only a moment, and drop what
the reader does not take. They use no thread of their own, so the last lines before ``os._exit`` are written too.

A pipe or a terminal is opened again, since the flag ``O_NONBLOCK`` belongs to an open file that other processes share.
The descriptors 1 and 2 then refer to the new open file, so that libraries and `faulthandler` do not block either.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import sys
import threading
import time
from contextlib import suppress
from io import RawIOBase, TextIOWrapper
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

#: All writes together wait this long for the reader, and as long again after a minute without a wait or a loss. A busy
#: machine delays a log collector by less.
PATIENCE_S: Final = 1.0
PATIENCE_RETURNS_S: Final = 60.0
_STDOUT, _STDERR = 1, 2


class Output(RawIOBase):
    """A standard stream that drops what it cannot write. Thread-safe.

    Args:
        descriptor: the stream's descriptor, which this object does not close.

    Attributes:
        lost_lines: how many lines were dropped since the caller last set this to 0.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._socket = _socket_of(descriptor)
        # Celery's pools of green threads, which a worker refuses a moment later, take `poll` out of its module.
        self._poll = select.poll() if hasattr(select, "poll") else None
        if self._poll is not None:
            self._poll.register(descriptor, select.POLLOUT)
        # A signal handler may log while the main thread, which it interrupts, writes.
        self._lock = threading.RLock()
        #: The rest of a line of which the reader took only the beginning.
        self._rest = b""
        self._patience_s = PATIENCE_S
        self._waited_at_s = float("-inf")
        self.lost_lines = 0

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """Return True."""
        return True

    @property
    def has_room(self) -> bool:
        """Whether the reader takes more at this moment."""
        return self._poll is None or bool(self._poll.poll(0))

    def write(self, data: ReadableBuffer, /) -> int:
        """Write data or drop it; return its length in bytes either way."""
        text = bytes(data)
        with self._lock:
            self._rest = self._rest[self._written(self._rest) :]
            written = 0 if self._rest else self._written(text)
            if written:
                self._rest = text[written:]
            else:
                self.lost_lines += text.count(b"\n")
        return len(text)

    def _written(self, data: bytes) -> int:
        """Write as much as possible; return the number of bytes written."""
        begin = 0
        # A pipe with room takes PIPE_BUF bytes at once, so this write blocks only in a pipe that cannot be opened again
        # and that another process fills in the same moment.
        with suppress(OSError):  # the disk is full, or the reader has ended
            while begin < len(data) and self._has_room_soon():
                part = data[begin : begin + select.PIPE_BUF]
                begin += self._socket.send(part, socket.MSG_DONTWAIT) if self._socket else os.write(self.fileno(), part)
        return begin

    def _has_room_soon(self) -> bool:
        if self._poll is None or self.has_room:
            return True
        began_s = time.monotonic()
        if not self.lost_lines and began_s - self._waited_at_s > PATIENCE_RETURNS_S:
            self._patience_s = PATIENCE_S
        if self._patience_s <= 0:
            return False
        has_room = bool(self._poll.poll(self._patience_s * 1000))
        self._waited_at_s = time.monotonic()
        self._patience_s -= self._waited_at_s - began_s
        return has_room


def keep_output_from_blocking() -> Output:
    """Replace this process's two output streams; return the one for standard error. Later calls change nothing."""
    found = getattr(sys.stderr, "buffer", None)
    if isinstance(found, Output):
        return found
    _open_again(_STDOUT)
    _open_again(_STDERR)
    errors = Output(_STDERR)
    sys.stdout, sys.stderr = _text(Output(_STDOUT), sys.stdout), _text(errors, sys.stderr)
    # Celery prints its banner, and the stacks of its threads, to these.
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[misc]  # documented, and typed as final
    return errors


def _open_again(descriptor: int) -> None:
    """Have a descriptor of a pipe or a terminal refer to an open file of this process's own, which does not block."""
    with suppress(OSError):  # it is closed; or this user may not open it, and `Output` waits for room instead
        if not (stat.S_ISFIFO(os.fstat(descriptor).st_mode) or os.isatty(descriptor)):
            return
        own = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        os.dup2(own, descriptor)
        os.close(own)


def _socket_of(descriptor: int) -> socket.socket | None:
    with suppress(OSError):  # it is closed
        if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return socket.socket(fileno=os.dup(descriptor))
    return None


def _text(raw: Output, old: Any) -> TextIOWrapper[Any]:
    return TextIOWrapper(
        raw,  # without a buffer, so that each line is one write
        encoding=getattr(old, "encoding", None) or "utf-8",
        errors="backslashreplace",
        write_through=True,
    )
