"""What a worker and its decoder process say to each other over one socket: fixed heads, then bytes of a known length.

The worker sends ``OPEN`` with a file or ``DECODE``, one at a time, and gets one answer to each. Nothing that comes back
is believed: a decoder may have been taken over by the image that it decodes.
"""

from __future__ import annotations

import struct
from typing import Final

from worker.decoding.images import REFUSALS

OPEN: Final = 1
#: Decode what was opened; answered with what `Geometry` gives or, without one, with RGB.
DECODE: Final = 2

#: Which of the two, and how many bytes of a file follow.
REQUEST: Final = struct.Struct("<BQ")
#: Outcome, format, width, height, and a number: of bytes that decoding takes for OPEN, of bytes that follow for DECODE;
#: then whether RGB names a transparent colour, and its three values.
ANSWER: Final = struct.Struct("<BBIIQ?3H")
#: What a decoder sends first: whether system calls are filtered.
HELLO: Final = struct.Struct("<4s?")
MAGIC: Final = b"nsd1"

OUTCOMES: Final = ("ok", *REFUSALS)
FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF")
