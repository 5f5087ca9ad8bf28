"""What every response has: a request id, headers of security, a count, and a problem in place of a traceback."""

from __future__ import annotations

import logging
import secrets
import time
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from producer.contract.request_id import is_request_id
from producer.web.logs import place_of
from producer.web.metrics import Metrics
from producer.web.problems import Problem

logger = logging.getLogger(__name__)

#: Unless the response itself has the header.
_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
#: Names of routes that `Metrics` counts; what no route matches is one.
UNMATCHED: Final = "unmatched"


def request_id_of(scope: Scope) -> str:
    """Return the id of a request, by which its caller and the log name it."""
    request_id: str = scope["state"]["request_id"]
    return request_id


class Envelope:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, root_path: str) -> None:
        self._app = app
        self._metrics = metrics
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; an error of the application becomes ``internal``."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_s = time.perf_counter()
        request_id = _given_id(scope) or secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        status, is_complete = 0, False

        async def send_with_headers(message: Message) -> None:
            nonlocal status, is_complete
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message["headers"])
                present = {name.lower() for name, _ in headers}
                headers += [header for header in _HEADERS if header[0] not in present]
                headers += scope["state"].get("headers", ())
                headers.append((b"x-request-id", request_id.encode()))
                message = {**message, "headers": headers}
            else:
                is_complete = not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:
            logger.error("request %s failed: %s", request_id, place_of(error))
            if not status:
                await Problem("internal").response(request_id, self._root_path)(scope, receive, send_with_headers)
            elif not is_complete:
                raise ConnectionAbortedError from None  # uvicorn closes the connection, so that the client notices
        finally:
            route = getattr(scope.get("route"), "path", UNMATCHED)
            self._metrics.served(route, scope["method"], status, time.perf_counter() - began_s)


def _given_id(scope: Scope) -> str | None:
    values: list[bytes] = [value for name, value in scope["headers"] if name == b"x-request-id"]
    given = values[0].decode("latin-1") if len(values) == 1 else None
    return given if is_request_id(given) else None
