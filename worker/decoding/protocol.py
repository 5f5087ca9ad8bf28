"""The protocol between a worker and its decoder process: fixed headers, then bytes of a known length, over one socket.

The worker sends one request at a time, ``OPEN`` with a file or ``DECODE``, and the decoder replies to each with an
``ANSWER``. An image may have taken over the decoder, so the worker validates every reply.
"""

from __future__ import annotations

import signal
import struct
from typing import Final

from worker.decoding.images import REFUSALS

OPEN: Final = 1
#: DECODE decodes the opened file; the reply holds the `Geometry`'s output or, without a geometry, the RGB image.
DECODE: Final = 2

#: A request holds its kind and the number of bytes that follow, which are a file's for OPEN and none for DECODE.
REQUEST: Final = struct.Struct("<BQ")
#: A reply holds the outcome, format, width and height; a number of bytes (for OPEN, the memory that decoding takes; for
#: DECODE, the size of the pixels that follow); and whether the RGB image has a transparent colour, and that colour.
ANSWER: Final = struct.Struct("<BBIIQ?3H")
#: A decoder that is ready sends the magic bytes and whether its system calls are filtered.
HELLO: Final = struct.Struct("<4s?")
MAGIC: Final = b"nsd1"

#: These signals end a decoder because of its image: the decoder crashed, made a forbidden system call or used up its
#: CPU time. It ignores all others that can be ignored, since a supervisor may send them to all processes of a service.
ENDED_BY_ITS_IMAGE: Final = frozenset(
    {
        *(signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGTRAP),
        *(signal.SIGSYS, signal.SIGXCPU),
    }
)

OUTCOMES: Final = ("ok", *REFUSALS)
