"""A strict decoder of the chunked transfer coding (RFC 9112, 7.1).

The decoder makes one exception: it allows white space after a chunk's size, because old servers pad sizes with white
space, which browsers, curl and Go's client skip.
"""

from __future__ import annotations

import re
from io import BufferedReader, BytesIO
from typing import Final

from worker.fetch.failures import FetchFailed, bad_response
from worker.fetch.head import read_fields
from worker.fetch.meter import Meter

#: One read within a chunk returns at most this many bytes.
PIECE_BYTES: Final = 65_536
#: The line with a chunk's size and extensions may have this many bytes, as in Go's client.
MAX_LINE_BYTES: Final = 4_096
#: All framing (sizes, extensions, line ends) may have this many bytes plus a 64th of the body's bytes, because Python
#: needs microseconds for each chunk, however small. A body of 200 KB may thus have chunks of one byte, and any body may
#: have chunks of 450 bytes.
FREE_FRAMING_BYTES: Final = 1_048_576
FRAMING_SHARE: Final = 64

_END: Final = b"\r\n"
_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED: Final = rb'"(?:[\t !\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t -\x7e\x80-\xff])*"'
_LINE: Final = re.compile(
    rb"([0-9A-Fa-f]+)(?:[ \t]*;[ \t]*%(token)b(?:[ \t]*=[ \t]*(?:%(token)b|%(quoted)b))?)*[ \t]*\r\n"
    % {b"token": _TOKEN, b"quoted": _QUOTED}
)


def read_chunks(wire: BufferedReader[Meter], max_bytes: int) -> bytes:
    """Read a chunked body, including its trailer section, and return it decoded.

    Raises:
        FetchFailed: ``bad_response``, ``too_large`` or ``truncated``.
    """
    body, framing_bytes = BytesIO(), 0
    while True:
        size_bytes, line_bytes = _read_size(wire)
        framing_bytes += line_bytes + len(_END)
        if framing_bytes > max_framing_bytes(body.tell()):
            raise bad_response("the server sends the body in chunks that are too small; check the server.")
        if not size_bytes:
            break
        if size_bytes > max_bytes - body.tell():
            raise FetchFailed("too_large")
        while size_bytes:
            piece = wire.read(min(size_bytes, PIECE_BYTES))
            if not piece:
                raise FetchFailed("truncated")
            size_bytes -= body.write(piece)
        if (end := wire.read(len(_END))) != _END:
            raise FetchFailed("truncated") if _END.startswith(end) else bad_response("a chunk exceeds its size.")
    # The body is complete after the last chunk (RFC 9112, 8), where some servers close the connection without the empty
    # line that ends the trailer section.
    if wire.peek(1) and read_fields(wire) is None:
        raise FetchFailed("truncated")
    return body.getvalue()


def max_framing_bytes(body_bytes: int) -> int:
    """Return the largest number of framing bytes for a body of this size."""
    return FREE_FRAMING_BYTES + body_bytes // FRAMING_SHARE


def _read_size(wire: BufferedReader[Meter]) -> tuple[int, int]:
    """Read the line that begins a chunk; return the sizes of the chunk and of the line in bytes."""
    line = wire.readline(MAX_LINE_BYTES)
    if (match := _LINE.fullmatch(line)) is not None:
        return int(match[1], 16), len(line)
    if not line.endswith(b"\n") and len(line) < MAX_LINE_BYTES:
        raise FetchFailed("truncated")
    raise bad_response("the line with a chunk's size is malformed; check the server.")
