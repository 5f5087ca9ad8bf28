"""Functions that look for a secret wherever it may have leaked to."""

from __future__ import annotations

import base64
import traceback
from typing import Any

from tests.valkey_server import ValkeyServer


def whole(error: BaseException | None) -> str:
    """Return all text of an exception and of those that caused it, without the frames, which hold this test's lines."""
    said = ""
    while error is not None:
        said += repr(error) + str(error) + repr(error.args) + repr(vars(error))
        said += "".join(traceback.TracebackException.from_exception(error).format_exception_only())
        error = error.__cause__ or error.__context__
    return said


def everything_in(valkey: ValkeyServer, database: int) -> str:
    """Return every key and value of a database, except for the messages that an operator may replay."""
    found = []
    with valkey.connect(database) as server:
        for key in server.scan_iter():
            kind = server.type(key)
            read: dict[bytes, Any] = {
                b"string": server.get,
                b"hash": server.hgetall,
                b"list": lambda name: server.lrange(name, 0, -1),
                b"set": server.smembers,
                b"zset": lambda name: server.zrange(name, 0, -1),
            }
            if key == b"nameshot:dead-letters:messages":
                continue  # the message of a poisoned job waits here for its replay
            if kind == b"none":
                continue  # it has expired meanwhile
            found.append(f"{key!r}: {read[kind](key)!r}")
    return "\n".join(found)


def show_nothing_of(text: str, *secrets: str) -> None:
    """Assert that a text holds no secret, neither as it is nor in base64."""
    assert text
    for secret in secrets:
        for spelling in _spellings(secret):
            where = text.find(spelling)
            assert where < 0, text[max(0, where - 300) : where + 300]


def _spellings(secret: str) -> set[str]:
    """Return the secret as it is, and its three forms in base64, one for each offset within a group of three bytes."""
    found = {secret}
    for offset in range(3):
        written = base64.b64encode(b"." * offset + secret.encode()).decode()
        found.add(written[-(-offset * 8 // 6) : (offset + len(secret)) * 8 // 6])
    return found
