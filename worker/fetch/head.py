"""The head of an answer, line by line: no more than so many bytes, and only lines that every reader takes alike.

``http.client`` leaves a head's lines to the email package, which ends a line at a bare CR too, drops every field after
a line that is none, and takes a head that breaks off for a whole one. Each of them lets a server announce one length to
it and another to other readers. Such a head is refused before ``http.client`` sees it.
"""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterable
from io import BufferedReader
from typing import Final

from worker.fetch.meter import Meter

#: A whole head, and all interim answers before it. Browsers take 256 KB, most servers write less than 4 KB.
MAX_HEAD_BYTES: Final = 65_536
#: As many fields as http.client takes, folded lines included.
MAX_LINES: Final = 100

_DIGITS: Final = b"0123456789"
#: What each byte of a status line may be, up to the status: a line of something else may never end.
_BEGINNING: Final = (*(bytes([byte]) for byte in b"HTTP/1."), _DIGITS, b" ", _DIGITS[1:], _DIGITS, _DIGITS)
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[0-9] ([1-9][0-9]{2})(?: [^\0\r\n]*)?\r?\n")
#: RFC 9110, 15.2: what comes before the final answer is skipped, asked for or not (103 Early Hints). But nothing was
#: asked to speak another protocol from now on, so that 101 is an answer, and a failure.
_INTERIM: Final = re.compile(rb"1(?!01)")
_FIELD_LINE: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\0\r\n]*\r?\n")
#: RFC 9112, 5.2: a user agent reads a line that begins with white space as the rest of the one before.
_FOLDED_LINE: Final = re.compile(rb"[ \t][^\0\r\n]*\r?\n")
_END: Final = (b"\r\n", b"\n")
#: What may stand around a field's value (RFC 9110, 5.6.3). Python strips much more.
BLANKS: Final = " \t"


class BadHead(http.client.HTTPException):
    """A head, or a trailer section, that RFC 9112 does not allow."""


def read_head(wire: BufferedReader[Meter]) -> bytes:
    """The head of the final answer, folded lines unfolded, up to and with the empty line.

    Raises:
        BadHead: a line is none of a head's, or there are too many.
        http.client.BadStatusLine: what came is not HTTP/1.
        http.client.RemoteDisconnected: the connection ended before the head did.
    """
    while True:
        line = _read_status_line(wire)
        if not line:
            raise http.client.RemoteDisconnected("the connection ended before an answer")
        if (match := _STATUS_LINE.fullmatch(line)) is None:
            raise http.client.BadStatusLine("not HTTP/1")
        fields = read_fields(wire)
        if fields is None:
            raise http.client.RemoteDisconnected("the connection ended within the head")
        if not _INTERIM.match(match[1]):
            return line + fields + b"\r\n"


def _read_status_line(wire: BufferedReader[Meter]) -> bytes:
    """The line as far as it is one; nothing where the connection has ended."""
    line = b""
    for allowed in _BEGINNING:
        byte = wire.read(1)
        line += byte
        if not byte or byte not in allowed:
            return line
    return line + wire.readline(MAX_HEAD_BYTES + 1)


def list_members(values: Iterable[str]) -> list[str]:
    """The members of a field that is a list of tokens, in lower case, however many fields it was divided into.

    Empty members are none (RFC 9110, 5.6.1).
    """
    members = (member.strip(BLANKS) for value in values for member in value.split(","))
    return [member.lower() for member in members if member]


def read_fields(wire: BufferedReader[Meter]) -> bytes | None:
    """The field lines up to an empty line, which is read too; None when the connection ended before it.

    Raises:
        BadHead: a line is no field's, or there are too many.
    """
    lines: list[bytes] = []
    while (line := wire.readline(MAX_HEAD_BYTES + 1)) not in _END:
        if not line.endswith(b"\n"):
            if len(line) > MAX_HEAD_BYTES:
                raise BadHead("a line is too long")
            return None
        if len(lines) == MAX_LINES:
            raise BadHead("there are too many lines")
        if lines and _FOLDED_LINE.fullmatch(line):
            lines[-1] = lines[-1].rstrip(b"\r\n")
            lines.append(b" " + line.lstrip(b" \t"))
        elif _FIELD_LINE.fullmatch(line):
            lines.append(line)
        else:
            raise BadHead("a line is no field's")
    return b"".join(lines)
