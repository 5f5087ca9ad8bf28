"""Handles standard streams that are closed, or that cannot be written because a disk is full.

A shell closes a stream with ``>&-``, and a supervisor may start a program without streams. Python then sets
``sys.stdout`` to None, for example, and the next socket that the program opens would become its standard output.
"""

from __future__ import annotations

import errno
import os
import sys
from io import BufferedReader, BufferedWriter, FileIO, TextIOWrapper
from typing import TYPE_CHECKING, Any, Final, TextIO

from producer.errors import NameshotError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_STDIN, _STDOUT, _STDERR = range(3)
_ACTIONS: Final = {_STDIN: "standard input cannot be read", _STDOUT: "standard output cannot be written"}


class StreamFailed(NameshotError, OSError):
    """A standard stream is closed or fails. The arguments are an error number, the reason and what failed."""

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}."


def prepare_streams() -> None:
    """Replace the standard streams, so that a failure raises `StreamFailed`; a failure of standard error is ignored."""
    closed = [number for number, stream in enumerate((sys.stdin, sys.stdout, sys.stderr)) if stream is None]
    for _ in closed:
        # The descriptor gets the lowest free number, that of a closed stream, and child processes inherit it.
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if _STDIN in closed:
        sys.stdin = TextIOWrapper(BufferedReader(_Closed(_STDIN)), encoding="utf-8")
    output: type[_Output] = _Closed if _STDOUT in closed else _Output
    sys.stdout = _text(output(_STDOUT, "w"), sys.stdout)
    sys.stderr = _text(_Notices(_STDERR, "w"), sys.stderr)


def _text(raw: FileIO, old: TextIO | Any) -> TextIOWrapper:
    """Return a text stream as Python would make it, except that it escapes characters that the encoding lacks."""
    lines, unbuffered = (old.line_buffering, old.write_through) if isinstance(old, TextIOWrapper) else (False, False)
    return TextIOWrapper(
        raw if unbuffered else BufferedWriter(raw),  # Python leaves out the buffer too, if it is called with -u
        encoding=getattr(old, "encoding", "utf-8"),
        errors="backslashreplace",
        line_buffering=lines,
        write_through=unbuffered,
    )


class _Output(FileIO):
    def __init__(self, number: int, mode: str = "r") -> None:
        super().__init__(number, mode, closefd=False)

    def write(self, data: ReadableBuffer, /) -> Any:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StreamFailed(error.errno, error.strerror, _ACTIONS[self.fileno()]) from None


class _Closed(_Output):
    """Replaces a stream that was closed when the program began."""

    def _fail(self, *_: Any) -> Any:
        raise StreamFailed(errno.EBADF, "it is closed", _ACTIONS[self.fileno()])

    readinto = readall = write = _fail


class _Notices(_Output):
    def write(self, data: ReadableBuffer, /) -> Any:
        try:
            return FileIO.write(self, data)
        except OSError:  # no other stream is left to report the failure
            return memoryview(data).nbytes
