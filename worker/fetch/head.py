"""Reads a response's head of limited size, and accepts only lines that all HTTP readers interpret in the same way.

``http.client`` has the email package parse a head, which also ends a line at a bare CR, drops all fields after a
malformed line, and accepts an incomplete head. In each of these cases ``http.client`` could read a different length
from the head than other readers do. This module therefore rejects such a head before ``http.client`` parses it. It also
leaves out all fields that no reader uses, because ``http.client`` refuses a head of more than 100 fields.
"""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterable
from io import BufferedReader
from typing import Final

from worker.fetch.meter import Meter

#: A head may have this size, including all interim responses before it. Browsers accept 256 KB; most servers send under
#: 4 KB.
MAX_HEAD_BYTES: Final = 65_536
#: A head, or a trailer section, may have this many lines, folded ones included.
MAX_LINES: Final = 1_000

_DIGITS: Final = b"0123456789"
#: The bytes allowed at each position of a status line, up to the status. Checking each byte detects another protocol,
#: whose first line may never end.
_BEGINNING: Final = (*(bytes([byte]) for byte in b"HTTP/1."), _DIGITS, b" ", _DIGITS[1:], _DIGITS, _DIGITS)
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[0-9] ([1-9][0-9]{2})(?: [^\0\r\n]*)?\r?\n")
#: Interim responses, such as 103 Early Hints, are skipped (RFC 9110, 15.2). A 101 is not skipped: no request offers to
#: switch protocols, so 101 is the final response, with a status that fails the download.
_INTERIM: Final = re.compile(rb"1(?!01)")
_FIELD_LINE: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\0\r\n]*\r?\n")
#: A line that begins with white space continues the previous line (RFC 9112, 5.2).
_FOLDED_LINE: Final = re.compile(rb"[ \t][^\0\r\n]*\r?\n")
_END: Final = (b"\r\n", b"\n")
#: The fields that the worker, http.client or urllib3 reads.
_USED_FIELD: Final = re.compile(
    rb"(?:content-length|transfer-encoding|content-encoding|connection|proxy-connection|keep-alive|location|retry-after"
    rb"|cache-control|etag|last-modified|date|age|expires|vary):",
    re.IGNORECASE,
)
#: Only these characters may surround a field's value (RFC 9110, 5.6.3); `str.strip` without them removes more.
BLANKS: Final = " \t"


class BadHead(http.client.HTTPException):
    """A head, or a trailer section, that RFC 9112 does not allow."""


class TooLong(BadHead):
    """A head, or a trailer section, with a line longer than MAX_HEAD_BYTES or with more lines than MAX_LINES."""


def read_head(wire: BufferedReader[Meter]) -> bytes:
    """Return the status line, the used fields and the empty line of the final response, with its lines unfolded.

    Raises:
        BadHead: a line is malformed.
        TooLong: a line is too long, or there are too many lines.
        worker.fetch.meter.Exceeded: the head has more bytes than the meter allows.
        http.client.BadStatusLine: the response is not HTTP/1.
        http.client.RemoteDisconnected: the connection ended before the head did.
    """
    while True:
        line = _read_status_line(wire)
        if not line:
            raise http.client.RemoteDisconnected("the connection ended before a response")
        if (match := _STATUS_LINE.fullmatch(line)) is None:
            raise http.client.BadStatusLine("not HTTP/1")
        fields = read_fields(wire)
        if fields is None:
            raise http.client.RemoteDisconnected("the connection ended within the head")
        if not _INTERIM.match(match[1]):
            return b"".join((line, *filter(_USED_FIELD.match, fields), b"\r\n"))


def _read_status_line(wire: BufferedReader[Meter]) -> bytes:
    """Read the status line, up to the first byte that cannot belong to one; return b"" if the connection has ended."""
    line = b""
    for allowed in _BEGINNING:
        byte = wire.read(1)
        line += byte
        if not byte or byte not in allowed:
            return line
    return line + wire.readline(MAX_HEAD_BYTES + 1)


def list_members(values: Iterable[str]) -> list[str]:
    """Return the members of a list field, which may have several field lines, in lower case.

    Empty members are ignored (RFC 9110, 5.6.1).
    """
    members = (member.strip(BLANKS) for value in values for member in value.split(","))
    return [member.lower() for member in members if member]


def read_fields(wire: BufferedReader[Meter]) -> list[bytes] | None:
    """Read up to and including the empty line and return the fields; None if the connection ended before it.

    Raises:
        BadHead: a line is malformed.
        TooLong: a line is too long, or there are too many lines.
    """
    fields: list[bytes] = []
    lines = 0
    while (line := wire.readline(MAX_HEAD_BYTES + 1)) not in _END:
        if not line.endswith(b"\n"):
            if len(line) > MAX_HEAD_BYTES:
                raise TooLong("a line is too long")
            return None
        lines += 1
        if lines > MAX_LINES:
            raise TooLong("there are too many lines")
        if fields and _FOLDED_LINE.fullmatch(line):
            fields[-1] = fields[-1].rstrip(b"\r\n") + b" " + line.lstrip(b" \t")
        elif _FIELD_LINE.fullmatch(line):
            fields.append(line)
        else:
            raise BadHead("a line is not a field")
    return fields
