"""Parse a Redis URL in Celery's or redis-py's form, for clients and workers, and redact it for messages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from producer.broker.arguments import WrongArgument, read_arguments
from producer.errors import SettingsError

Medium = Literal["tcp", "tls", "unix"]

#: For a Unix socket, kombu accepts ``redis+socket``, Celery's result backend also ``socket``, and redis-py ``unix``.
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
        url: the URL as given; it may contain a password.
        shown: the URL for messages, without password and arguments.
        variable: the environment variable that holds the URL.
        medium: TCP, TLS or a Unix socket.
        arguments: the arguments for redis-py's connection class of that medium, without ``protocol``, which
            `producer.broker.dialling` chooses.
    """

    url: str = field(repr=False)
    shown: str
    variable: str
    medium: Medium
    arguments: Mapping[str, Any] = field(repr=False, hash=False)


def endpoint(url: str, variable: str) -> Endpoint:
    """Parse a broker or result backend URL; raises `SettingsError` if it is not a Redis URL."""
    url = url.strip()
    scheme, separator, rest = url.partition("://")
    medium = _MEDIA.get(scheme.lower())
    if medium and ";" in rest and "://" not in rest:
        raise SettingsError(f"{variable} contains a ;, which separates URLs; in a password, percent-encode it as %3B.")
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
        raise SettingsError(f"{variable} contains a #, which ends a URL; in a password, percent-encode it as %23.")
    host = _host(parts, variable)
    if not _is_utf8(parts.netloc + parts.query):
        raise SettingsError(f"{variable} contains bytes that are not UTF-8; percent-encode them.")
    try:
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        arguments = read_arguments(pairs, tls=medium == "tls")
    except WrongArgument as error:
        raise SettingsError(f"{variable} {error}") from None
    arguments.pop("protocol", None)
    for name, given in (("username", parts.username), ("password", parts.password)):
        if given:  # as in redis-py, this overrides the argument after the question mark
            arguments[name] = unquote(given)
    user = arguments.get("username", "") + (":**" if "password" in arguments else "")
    user = f"{user}@" if user else ""
    if medium == "unix":
        if parts.hostname:
            raise SettingsError(
                f"{variable} names the host {parts.hostname[:100]!r} before a socket; begin the path with a slash, "
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
    """Return whether Python can try to resolve the name; for any other name, it raises errors that are not OSErrors."""
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
            f"{variable} names the host {written[:100]!r}, which is not a valid host name; "
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
    """Return the URL's scheme for a message, but nothing of a URL without a scheme: it may begin with a password."""
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]{0,19}(?=://)", url)
    return repr(scheme[0].lower()) if scheme else "a text without a scheme"
