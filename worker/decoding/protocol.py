"""The protocol between a worker and its decoder process: fixed headers, then bytes of a known length, over one socket.

The worker sends ``OPEN`` with a file, or ``DECODE``, one at a time, and gets one answer to each. It validates every
answer, since an image may have taken over the decoder.
"""

from __future__ import annotations

import signal
import struct
from typing import Final

from worker.decoding.images import REFUSALS

OPEN: Final = 1
#: DECODE decodes the opened file; the answer holds the `Geometry`'s output or, without one, RGB.
DECODE: Final = 2

#: A request holds its kind and the number of bytes of a file that follow.
REQUEST: Final = struct.Struct("<BQ")
#: An answer holds outcome, format, width, height and a number of bytes: for OPEN those that decoding takes, for DECODE
#: those that follow; then whether the RGB image names a transparent colour, and its three values.
ANSWER: Final = struct.Struct("<BBIIQ?3H")
#: A decoder first sends the magic bytes and whether its system calls are filtered.
HELLO: Final = struct.Struct("<4s?")
MAGIC: Final = b"nsd1"

#: A decoder ends by these signals because of what its image made it do: it crashed, or used up its CPU time. It ignores
#: all others that can be ignored, since a supervisor may send them to all processes of a service.
ENDED_BY_ITS_IMAGE: Final = frozenset(
    {
        *(signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGTRAP),
        *(signal.SIGSYS, signal.SIGXCPU),
    }
)

OUTCOMES: Final = ("ok", *REFUSALS)
