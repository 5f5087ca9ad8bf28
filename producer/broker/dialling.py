"""Create redis-py clients for an `Endpoint`, in the same way for every part of nameshot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import redis
import redis.asyncio
from redis.exceptions import RedisError

from producer.broker.scripting import AsyncScriptingRedis, ScriptingRedis
from producer.broker.urls import Endpoint, Medium
from producer.errors import SettingsError

CLASSES: Final[Mapping[Medium, Any]] = {
    "tcp": redis.Connection,
    "tls": redis.SSLConnection,
    "unix": redis.UnixDomainSocketConnection,
}
_ASYNC_CLASSES: Final[Mapping[Medium, Any]] = {
    "tcp": redis.asyncio.Connection,
    "tls": redis.asyncio.SSLConnection,
    "unix": redis.asyncio.UnixDomainSocketConnection,
}
#: Options never override these arguments of the URL, because kombu and Celery parse them differently.
_OF_THE_URL: Final = frozenset({"host", "port", "db", "username", "password"})
#: By default a pool of redis-py refuses to open more than a hundred connections, with an error as if Redis had refused
#: them. A thread uses one connection at a time, so the number of threads is the limit.
MAX_CONNECTIONS: Final = 2**31
#: The version of Redis' protocol; servers older than Redis 6, which are refused in a sentence, know no other. With
#: version 3, redis-py expects maintenance notifications, which some hosted servers send. It then also reuses a
#: connection with unread data, and takes a surplus reply for the reply to the next command, such as the one that stores
#: an answer. With version 2 it replaces such a connection.
PROTOCOL: Final = 2


def connect(endpoint: Endpoint, **options: Any) -> redis.Redis:
    """Return a client with its own connection pool; it runs scripts by their digests, and connects at its first use.

    Args:
        endpoint: the server and database.
        options: redis-py's connection options, which override the URL's as `connection_arguments` says.

    Raises:
        SettingsError: the installed redis-py does not know an argument of the URL.
    """
    pool = redis.ConnectionPool(
        connection_class=CLASSES[endpoint.medium],
        max_connections=MAX_CONNECTIONS,
        **connection_arguments(endpoint, options),
    )
    _check(pool, endpoint)
    return ScriptingRedis.from_pool(pool)


def connect_async(endpoint: Endpoint, **options: Any) -> redis.asyncio.Redis:
    """Return an asyncio client; otherwise the same as `connect`."""
    pool = redis.asyncio.ConnectionPool(
        connection_class=_ASYNC_CLASSES[endpoint.medium], **connection_arguments(endpoint, options)
    )
    _check(pool, endpoint)
    return AsyncScriptingRedis.from_pool(pool)


def connection_arguments(endpoint: Endpoint, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a connection's arguments: those of the URL, overridden by ``options``.

    The options do not override the URL's address, database, credentials and client name.
    """
    left_out = _OF_THE_URL | ({"client_name"} & endpoint.arguments.keys())
    if endpoint.medium == "unix":
        left_out |= {"socket_keepalive", "socket_keepalive_options"}
    ours = {name: value for name, value in options.items() if name not in left_out}
    return {**endpoint.arguments, **ours, "protocol": PROTOCOL}


def _check(pool: Any, endpoint: Endpoint) -> None:
    """Create a connection without connecting, to find arguments that the installed redis-py does not know."""
    try:
        pool.make_connection()
    except (TypeError, ValueError, RedisError) as error:
        reason = str(error).rpartition("__init__() ")[2].rstrip(".")
        raise SettingsError(
            f"{endpoint.variable} cannot be used with redis-py {redis.__version__}: {reason}."
        ) from None
