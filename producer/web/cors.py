"""Let pages of chosen origins call the API (CORS); without the setting, no response has any header of it."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_ALLOW_HEADERS: Final = (
    b"authorization, content-type, idempotency-key, last-event-id, prefer, if-none-match, x-request-id"
)
_EXPOSE_HEADERS: Final = (
    b"location, retry-after, etag, link, preference-applied, idempotent-replayed, ratelimit, ratelimit-policy, "
    b"x-request-id"
)
_ALLOW_METHODS: Final = b"GET, POST, DELETE"
_MAX_AGE_S: Final = b"600"


class Cors:
    """Answers preflights of allowed origins, and marks their responses; browsers never send credentials."""

    def __init__(self, app: ASGIApp, *, origins: frozenset[str]) -> None:
        self._app = app
        self._origins = frozenset(origin.encode() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a preflight, or pass the request on."""
        if scope["type"] != "http" or not self._origins:
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        origin = headers.get(b"origin")
        if origin not in self._origins:
            await self._app(scope, receive, send)
            return
        ours = [(b"access-control-allow-origin", origin), (b"vary", b"Origin")]
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
            ours += [
                (b"access-control-allow-methods", _ALLOW_METHODS),
                (b"access-control-allow-headers", _ALLOW_HEADERS),
                (b"access-control-max-age", _MAX_AGE_S),
            ]
            await send({"type": "http.response.start", "status": 204, "headers": ours})
            await send({"type": "http.response.body", "body": b""})
            return

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                exposed = (b"access-control-expose-headers", _EXPOSE_HEADERS)
                message = {**message, "headers": [*message["headers"], *ours, exposed]}
            await send(message)

        await self._app(scope, receive, send_marked)
