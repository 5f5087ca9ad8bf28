"""Celery's forms of a Redis URL, as redis-py reads them, and as they may be shown."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

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
    host_name = parts.hostname or "localhost"
    if not is_host(unquote(host_name)):  # redis-py unquotes it
        raise SettingsError(
            f"{variable} names the host {host_name[:100]!r}, which cannot be one; "
            "it should look like redis://localhost:6379/0."
        )
    if not _is_utf8(parts.netloc + parts.query):
        raise SettingsError(f"{variable} holds bytes that are not UTF-8; percent-encode them.")
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
    host = f"[{host_name}]" if ":" in host_name else host_name
    shown = f"{scheme}://{user}{host}:{port or 6379}/{database or 0}"
    if "ssl_cert_reqs" in query:
        # Celery documents CERT_REQUIRED, redis-py takes required.
        query["ssl_cert_reqs"] = query["ssl_cert_reqs"].lower().removeprefix("cert_")
    rewritten = f"{scheme}://{parts.netloc}{parts.path}" + (f"?{urlencode(query)}" if query else "")
    return Endpoint(rewritten, shown, variable)


def is_host(name: str) -> bool:
    """Whether a resolver can be asked for a name at all: for others Python raises errors that are no OSError."""
    try:
        name.encode("idna")
    except UnicodeError:
        return False
    return name.isprintable() and " " not in name


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown_scheme(url: str) -> str:
    """What a URL begins with; where that is no scheme it may be a password."""
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]{0,19}(?=://)", url)
    return repr(scheme[0].lower()) if scheme else "a text without a scheme"
