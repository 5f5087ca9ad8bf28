"""Celery's forms of a Redis URL, as redis-py reads them, and as they may be shown."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from producer.errors import SettingsError

_TCP: Final = ("redis", "rediss")
#: kombu says ``redis+socket``, Celery's result backend ``socket`` too, redis-py ``unix``.
_SOCKET: Final = ("redis+socket", "socket", "unix")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One Redis server and database.

    Attributes:
        url: as redis-py reads it; it may hold a password.
        shown: the same without password and query, for people.
        variable: the environment variable that names it.
    """

    url: str = field(repr=False)
    shown: str
    variable: str


def endpoint(url: str, variable: str) -> Endpoint:
    """Read a broker or result backend URL; raises `SettingsError` for one that is no Redis URL."""
    scheme, separator, _ = url.partition("://")
    scheme = scheme.lower()
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise SettingsError(f"{variable} is not a URL; it should look like redis://localhost:6379/0.") from None
    if not separator or scheme not in _TCP + _SOCKET or ";" in url:
        raise SettingsError(
            f"{variable} must be one redis://, rediss:// or redis+socket:// URL, not {_shown_scheme(url)}; "
            "other brokers and Sentinel are not supported."
        )
    query = dict(parse_qsl(parts.query))
    user = f"{parts.username or ''}:**@" if parts.password else f"{parts.username}@" if parts.username else ""
    if scheme in _SOCKET:
        if not parts.path:
            raise SettingsError(f"{variable} names no socket; it should look like redis+socket:///run/redis.sock.")
        query.setdefault("db", query.pop("virtual_host", "0").strip("/"))
        shown = f"redis+socket://{user}{parts.path}"
        return Endpoint(f"unix://{parts.netloc}{parts.path}?{urlencode(query)}", shown, variable)
    database = parts.path.strip("/")
    if database and not database.isdigit():
        raise SettingsError(f"{variable} must end in a database number, as in redis://localhost:6379/0.")
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or "localhost"
    shown = f"{scheme}://{user}{host}:{port or 6379}/{database or 0}"
    if "ssl_cert_reqs" in query:
        # Celery documents CERT_REQUIRED, redis-py takes required.
        query["ssl_cert_reqs"] = query["ssl_cert_reqs"].lower().removeprefix("cert_")
    rewritten = f"{scheme}://{parts.netloc}{parts.path}" + (f"?{urlencode(query)}" if query else "")
    return Endpoint(rewritten, shown, variable)


def _shown_scheme(url: str) -> str:
    """What a URL begins with; where that is no scheme it may be a password."""
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]{0,19}(?=://)", url)
    return repr(scheme[0].lower()) if scheme else "a text without a scheme"
