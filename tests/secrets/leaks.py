"""Where a secret may have got to, and how to find it there."""

from __future__ import annotations

import base64
import traceback
from typing import Any

from tests.valkey_server import ValkeyServer


def whole(error: BaseException | None) -> str:
    """Everything that an exception and those before it say; frames' own lines are those of this test."""
    said = ""
    while error is not None:
        said += repr(error) + str(error) + repr(error.args) + repr(vars(error))
        said += "".join(traceback.TracebackException.from_exception(error).format_exception_only())
        error = error.__cause__ or error.__context__
    return said


def everything_in(valkey: ValkeyServer, database: int) -> str:
    """Every key and value of a database, but for the messages that may be replayed."""
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
    """Fail where a text holds a secret, as it is or in base64."""
    assert text
    for secret in secrets:
        for spelling in _spellings(secret):
            where = text.find(spelling)
            assert where < 0, text[max(0, where - 300) : where + 300]


def _spellings(secret: str) -> set[str]:
    """The text itself, and in base64 wherever it begins."""
    found = {secret}
    for offset in range(3):
        written = base64.b64encode(b"." * offset + secret.encode()).decode()
        found.add(written[-(-offset * 8 // 6) : (offset + len(secret)) * 8 // 6])
    return found
