"""What a Redis URL means, read once for client and worker: Celery's forms and redis-py's, and how it may be shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from producer.broker.arguments import WrongArgument, read_arguments
from producer.errors import SettingsError

Medium = Literal["tcp", "tls", "unix"]

#: kombu says ``redis+socket``, Celery's result backend ``socket`` too, redis-py ``unix``.
_MEDIA: Final[Mapping[str, Medium]] = {
    "redis": "tcp",
    "rediss": "tls",
    "redis+socket": "unix",
    "socket": "unix",
    "unix": "unix",
}
DEFAULT_PORT: Final = 6379


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One Redis server and database.

    Attributes:
        url: as it was written; it may hold a password.
        shown: the same without password and arguments, for people.
        variable: the environment variable that names it.
        medium: how it is reached.
        arguments: for redis-py's connection of that medium; ``protocol`` is not among them, since what is said to
            Redis here is the same in both.
    """

    url: str = field(repr=False)
    shown: str
    variable: str
    medium: Medium
    arguments: Mapping[str, Any] = field(repr=False, hash=False)


def endpoint(url: str, variable: str) -> Endpoint:
    """Read a broker or result backend URL; raises `SettingsError` for one that is no Redis URL."""
    url = url.strip()
    scheme, separator, rest = url.partition("://")
    medium = _MEDIA.get(scheme.lower())
    if not separator or medium is None or ";" in url:
        raise SettingsError(
            f"{variable} must be one redis://, rediss:// or redis+socket:// URL, not {_shown_scheme(url)}; "
            "other brokers and Sentinel are not supported."
        )
    try:
        parts = urlsplit(f"{scheme.lower()}://{rest}")
        if (port := parts.port) == 0:
            raise ValueError
    except ValueError:
        raise SettingsError(f"{variable} is not a URL; it should look like redis://localhost:6379/0.") from None
    if "#" in url:
        raise SettingsError(f"{variable} holds a #, which ends a URL; in a password, percent-encode it as %23.")
    host = _host(parts, variable)
    if not _is_utf8(parts.netloc + parts.query):
        raise SettingsError(f"{variable} holds bytes that are not UTF-8; percent-encode them.")
    try:
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        arguments = read_arguments(pairs, tls=medium == "tls")
    except WrongArgument as error:
        raise SettingsError(f"{variable} {error}") from None
    arguments.pop("protocol", None)
    for name, given in (("username", parts.username), ("password", parts.password)):
        if given:  # redis-py prefers it to the argument
            arguments[name] = unquote(given)
    user = arguments.get("username", "") + (":**" if "password" in arguments else "")
    user = f"{user}@" if user else ""
    if medium == "unix":
        if parts.hostname:
            raise SettingsError(
                f"{variable} names the host {parts.hostname[:100]!r} before a socket; a path begins with a slash, "
                "as in redis+socket:///run/redis.sock."
            )
        if not parts.path.strip("/"):
            raise SettingsError(f"{variable} names no socket; it should look like redis+socket:///run/redis.sock.")
        arguments |= {"path": unquote(parts.path), "db": arguments.get("db", 0)}
        shown = f"unix://{user}{parts.path}?db={arguments['db']}"
        return Endpoint(url, shown, variable, medium, arguments)
    arguments |= {
        "host": host,
        "port": port or DEFAULT_PORT,
        "db": arguments.get("db", _database(parts, variable)),
    }
    bracketed = f"[{host}]" if ":" in host else host
    shown = f"{parts.scheme}://{user}{bracketed}:{arguments['port']}/{arguments['db']}"
    return Endpoint(url, shown, variable, medium, arguments)


def is_host(name: str) -> bool:
    """Whether a resolver can be asked for a name at all: for others Python raises errors that are no OSError."""
    try:
        name.encode("idna")
    except UnicodeError:
        return False
    return name.isprintable() and " " not in name


def _host(parts: SplitResult, variable: str) -> str:
    written = parts.hostname or "localhost"
    host = unquote(written)
    if not is_host(host):
        raise SettingsError(
            f"{variable} names the host {written[:100]!r}, which cannot be one; "
            "it should look like redis://localhost:6379/0."
        )
    return host


def _database(parts: SplitResult, variable: str) -> int:
    try:
        number: int = read_arguments([("db", unquote(parts.path) or "0")], tls=False)["db"]
    except WrongArgument:
        raise SettingsError(f"{variable} must end in a database number, as in redis://localhost:6379/0.") from None
    return number


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
