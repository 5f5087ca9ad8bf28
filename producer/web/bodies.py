"""Read a request's body: limited before it is parsed, and strict JSON as in messages."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from producer.contract.strict_json import MAX_PARTS, NotStrictJson, loads
from producer.web.envelope import request_id_of
from producer.web.problems import Problem

MIB: Final = 1 << 20
#: The maximum bytes of a body by method and path; every other request has none.
LIMITS_BYTES: Final = {("POST", "/v1/jobs"): MIB}
_JSON: Final = re.compile(r'application/json(?:\s*;\s*charset="?utf-8"?)?\s*', re.IGNORECASE)


class BodyLimits:
    """Refuses a body that is too large: by its declared length before any of it is read, otherwise while it is read."""

    def __init__(self, app: ASGIApp, methods_of: Callable[[str], set[str]], *, root_path: str) -> None:
        self._app = app
        self._methods_of = methods_of
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http" or scope["method"] not in self._methods_of(scope["path"]):
            await self._app(scope, receive, send)
            return
        limit_bytes = LIMITS_BYTES.get((scope["method"], scope["path"]), 0)
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"0")
        has_begun = False

        async def send_marked(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            if not declared.isdigit() or int(declared[:20]) > limit_bytes:
                raise _too_large()
            if b"transfer-encoding" in headers:
                receive = _counted(receive, limit_bytes)
                if not limit_bytes:
                    receive = await _peeked(receive)
            await self._app(scope, receive, send_marked)
        except Problem as problem:
            if has_begun:
                raise
            await problem.response(request_id_of(scope), self._root_path)(scope, receive, send)


def has_body(scope: Scope) -> bool:
    """Return whether a request may have a body."""
    headers = dict(scope["headers"])
    return headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers


def _too_large() -> Problem:
    # Otherwise the server would go on to read the body of this connection, however long it is.
    return Problem("body_too_large", headers={"Connection": "close"})


def _counted(receive: Receive, limit_bytes: int) -> Receive:
    read_bytes = 0

    async def counting() -> Message:
        nonlocal read_bytes
        message = await receive()
        read_bytes += len(message.get("body", b""))
        if read_bytes > limit_bytes:
            raise _too_large()
        return message

    return counting


async def _peeked(receive: Receive) -> Receive:
    """Read the first part of a body that should be empty, so that the request is refused if it is not."""
    first: list[Message] = [await receive()]

    async def replaying() -> Message:
        return first.pop() if first else await receive()

    return replaying


async def read_object(request: Request) -> dict[str, Any]:
    """Return the body's JSON object.

    Raises:
        Problem: the body has another type, or is no strict JSON object.
    """
    content_types = request.headers.getlist("content-type")
    if len(content_types) != 1 or not _JSON.fullmatch(content_types[0]):
        raise Problem("unsupported_media_type")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem("unsupported_media_type")
    try:
        data = await request.body()
    except ClientDisconnect:
        raise Problem("invalid_json", "the body ended early.") from None
    try:
        value = loads(data, max_parts=MAX_PARTS)
    except NotStrictJson as error:
        raise Problem("invalid_json", f"the body is not strict JSON: {error}.") from None
    if not isinstance(value, dict):
        raise Problem("invalid_job", errors=[("", "the body must be a JSON object.")])
    return value
