"""The chunked transfer coding of RFC 9112, 7.1, as strictly as it is written there.

But for blanks at the end of a size, which old servers pad it with and browsers, curl and Go's client skip.
"""

from __future__ import annotations

import re
from io import BufferedReader, BytesIO
from typing import Final

from worker.fetch.failures import bad_response, too_large, truncated
from worker.fetch.head import read_fields
from worker.fetch.meter import Meter

#: One read within a chunk.
PIECE_BYTES: Final = 65_536
#: Of one size with its extensions. Go's client takes as many.
MAX_LINE_BYTES: Final = 4_096
#: What chunks' sizes and extensions may take beside a body: so much, and a 64th of the body. Each costs microseconds of
#: Python, however few bytes it brings. 200 KB may come in chunks of a byte, and any body in chunks of 400.
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
    """The body that a chunked answer stands for, with the end of the answer read.

    Raises:
        FetchFailed: ``bad_response``, ``too_large`` or ``truncated``.
    """
    body, framing_bytes = BytesIO(), 0
    while True:
        size_bytes, line_bytes = _read_size(wire)
        framing_bytes += line_bytes + len(_END)
        if framing_bytes > max_framing_bytes(body.tell()):
            raise bad_response("the server cut the body into too small chunks; check the server.")
        if not size_bytes:
            break
        if size_bytes > max_bytes - body.tell():
            raise too_large()
        while size_bytes:
            piece = wire.read(min(size_bytes, PIECE_BYTES))
            if not piece:
                raise truncated()
            size_bytes -= body.write(piece)
        if (end := wire.read(len(_END))) != _END:
            raise truncated() if _END.startswith(end) else bad_response("a chunk is longer than it says.")
    # The body is whole once its last chunk has come (RFC 9112, 8): some servers hang up then.
    if wire.peek(1) and read_fields(wire) is None:
        raise truncated()
    return body.getvalue()


def max_framing_bytes(body_bytes: int) -> int:
    """What may come beside so many bytes of a body."""
    return FREE_FRAMING_BYTES + body_bytes // FRAMING_SHARE


def _read_size(wire: BufferedReader[Meter]) -> tuple[int, int]:
    """The size that begins a chunk, and that of its line, in bytes."""
    line = wire.readline(MAX_LINE_BYTES)
    if (match := _LINE.fullmatch(line)) is not None:
        return int(match[1], 16), len(line)
    if not line.endswith(b"\n") and len(line) < MAX_LINE_BYTES:
        raise truncated()
    raise bad_response("the size of a chunk is not one that HTTP allows.")
