"""Refuse requests for other hosts and from other sites before anything reads them: plain ASGI middleware."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from producer.web.envelope import request_id_of
from producer.web.problems import Problem

#: Load balancers and supervisors ask these by an address.
WITHOUT_HOST: Final = frozenset({"/healthz", "/readyz"})
#: The names of this machine in an URL. Another name that resolves to it may belong to a hostile page.
LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
#: Methods that change nothing.
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST: Final = re.compile(r"(?P<name>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?")


@dataclass(frozen=True, slots=True)
class HostRule:
    """Which hosts are served.

    Attributes:
        names: the allowed names, in lower case; None if every name is.
    """

    names: frozenset[str] | None

    @classmethod
    def of(cls, *, is_loopback: bool, hosts: Iterable[str]) -> HostRule:
        """Return the rule for a server that listens on a loopback address, or on another one."""
        named = frozenset(host.lower() for host in hosts)
        if is_loopback:
            return cls(LOOPBACK_NAMES | named)
        return cls(named or None)

    def check(self, values: list[bytes]) -> None:
        """Raise a `Problem` unless there is one Host header, with an allowed name."""
        if not values:
            raise Problem("invalid_request", "the request has no Host header; send exactly one.")
        host = values[0].decode("latin-1").lower()
        found = _HOST.fullmatch(host)
        if len(values) > 1 or found is None:
            raise Problem("host_not_served")
        if self.names is not None and not self.names & {found["name"], host}:
            raise Problem("host_not_served")


def check_origin(headers: list[tuple[bytes, bytes]], allowed: frozenset[str]) -> None:
    """Raise a `Problem` if a browser sent the request for a page of another site.

    The rule is that of Go's CrossOriginProtection: current browsers send Sec-Fetch-Site; older ones send Origin with
    every request that changes something; programs send neither.
    """
    origin, site, host = (_only(headers, name) for name in (b"origin", b"sec-fetch-site", b"host"))
    if origin is not None and origin in allowed:
        return
    if site is not None:
        if site not in ("same-origin", "none"):
            raise Problem("cross_origin")
        return
    if origin is not None and (host is None or _authority(origin) != host.lower()):
        raise Problem("cross_origin")


def _authority(origin: str) -> str | None:
    """Return the host and port of an origin; None for ``null`` and for what is no origin."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def _only(headers: list[tuple[bytes, bytes]], name: bytes) -> str | None:
    """Return a header's value; several values, joined, equal no valid one."""
    values = [value for key, value in headers if key == name]
    return b", ".join(values).decode("latin-1") if values else None


class Guards:
    """Applies `HostRule` and `check_origin` to each request."""

    def __init__(self, app: ASGIApp, *, hosts: HostRule, origins: frozenset[str], root_path: str) -> None:
        self._app = app
        self._hosts = hosts
        self._origins = origins
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "http":
            try:
                if scope["path"] not in WITHOUT_HOST:
                    self._hosts.check([value for name, value in scope["headers"] if name == b"host"])
                if scope["method"] not in SAFE:
                    check_origin(scope["headers"], self._origins)
            except Problem as problem:
                await problem.response(request_id_of(scope), self._root_path)(scope, receive, send)
                return
        await self._app(scope, receive, send)
